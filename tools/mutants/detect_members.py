"""Mutants of membership: SWIM with Lifeguard, and what carries it (keys, streams, feeds)."""

from functools import partial

from tools.mutants.table import mutant

_IDENTITY = "detect/core/swim/identity.py"
_TABLE = "detect/core/swim/table.py"
_SUSPICION = "detect/core/swim/suspicion.py"
_PROBE = "detect/core/swim/probe.py"
_NODE = "detect/core/swim/node.py"
_VIEW = "detect/core/swim/selfview.py"
_GOSSIP = "detect/core/swim/gossip.py"
_RING = "detect/core/swim/ring.py"
_AGENDA = "detect/core/swim/agenda.py"
_SYNC = "detect/core/swim/sync.py"
_WIRE = "detect/core/swim/wire.py"
_SEAL = "detect/members_seal.py"
_STREAM = "detect/members_stream.py"
_DRIVER = "detect/members_driver.py"

_swim = partial(
    mutant, level="detect", tests=("unit/test_detect_swim_table.py",), section="SWIM 4.2"
)
_probe = partial(
    mutant, level="detect", tests=("unit/test_detect_swim_probe.py",), section="SWIM 3.1"
)
_part = partial(
    mutant, level="detect", tests=("unit/test_detect_swim_parts.py",), section="Lifeguard IV.B"
)
_node = partial(
    mutant, level="detect", section="membership (ours)",
    tests=("unit/test_detect_swim_node.py", "unit/test_detect_swim_names.py"),
)  # fmt: skip
_bytes = partial(
    mutant, level="detect", tests=("unit/test_detect_swim_wire.py",), section="wire (ours)"
)
_sealed = partial(
    mutant, level="detect", section="seal (ours)",
    tests=("unit/test_detect_members_seal.py", "property/test_detect_members_seal.py"),
)  # fmt: skip
_driven = partial(
    mutant, level="detect", tests=("unit/test_detect_members_sim.py",),
    section="membership (ours), driver",
)  # fmt: skip
_small = partial(
    mutant, level="detect", tests=("unit/test_detect_members_parts.py",),
    section="membership (ours), driver",
)  # fmt: skip

NEWS = (
    _swim(
        "swim-objection-is-not-above", _IDENTITY,
        "context.incarnation = above + 1", "context.incarnation = above",
        breaks="An objection has a higher incarnation than the accusation", faults="an accusation",
    ),
    _swim(
        "swim-old-accusation-is-answered", _IDENTITY,
        "if incarnation < context.incarnation or context.leaving:", "if context.leaving:",
        breaks="What was objected to already is not objected to again", faults="late gossip",
    ),
    _swim(
        "swim-objecting-costs-nothing", _IDENTITY,
        "        context.view.adjust(1)\n", "",
        breaks="Who is accused takes it for a sign of being slow itself", faults="an accusation",
        section="Lifeguard IV.A",
    ),
    _bytes(
        "swim-incarnation-leaps", _IDENTITY,
        "if told - known > JUMP_MAX:", "if told - known > 1 << 48:",
        breaks="Nobody can use up another's incarnations", faults="a forged incarnation",
        section="identity (ours)",
    ),
    _swim(
        "swim-old-news-revive-the-dead", _TABLE,
        "if news.incarnation <= peer.incarnation:", "if news.incarnation < peer.incarnation:",
        breaks="Alive wins against dead only at a higher incarnation", faults="late gossip",
    ),
    _swim(
        "swim-one-word-removes", _TABLE,
        "peer.state is ALIVE or (support < 2 and self.alive >= 2)", "peer.state is ALIVE",
        breaks="One accuser alone removes nobody elsewhere", faults="one node that hears nobody",
        section="membership (ours), guard",
    ),
    _swim(
        "swim-removal-is-taken-at-its-word", _TABLE,
        "peer.state is ALIVE or (support < 2 and self.alive >= 2)",
        "support < 2 and self.alive >= 2",
        breaks="Who did not suspect a member takes its removal for a suspicion",
        faults="a mistaken removal", section="membership (ours), guard",
    ),
    _bytes(
        "swim-the-dead-accuse", _TABLE,
        "return accusation.by != name and (accuser is None or not accuser.gone)",
        "return accusation.by != name",
        breaks="Who is removed accuses nobody", faults="a frozen member that wakes",
        section="membership (ours)",
    ),
    _swim(
        "swim-the-removed-are-not-remembered", _TABLE,
        "                    self._bury(entry)\n", "                    pass\n",
        breaks="Who was removed before one came is not revived by old news", faults="a join",
        section="membership (ours), exchange",
    ),
    _swim(
        "swim-suspicion-begins-again", _TABLE,
        "            peer.suspicion = Suspicion(context.now_ns)\n        fresh = [",
        "            peer.suspicion = Suspicion(context.now_ns)\n"
        "        peer.suspicion.began_ns = context.now_ns\n        fresh = [",
        breaks="Further accusers shorten a suspicion, and do not begin it again",
        faults="several accusers", section="Lifeguard IV.B",
        tests=("unit/test_detect_swim_table.py", "unit/test_detect_swim_node.py"),
    ),
    _swim(
        "swim-older-accusation-counts", _TABLE,
        "        if peer is None or peer.gone or incarnation < peer.incarnation:\n"
        "            return\n        heeded = [",
        "        if peer is None or peer.gone:\n            return\n        heeded = [",
        breaks="An accusation of an older incarnation is answered already", faults="late gossip",
    ),
    _swim(
        "swim-older-good-bye-counts", _TABLE,
        "if peer is None or incarnation < peer.incarnation or peer.state is LEFT:",
        "if peer is None or peer.state is LEFT:",
        breaks="A good-bye of an earlier life does not end this one", faults="a quick restart",
    ),
    _swim(
        "swim-a-death-leaves-k-as-it-was", _TABLE,
        "        for suspect in self.suspects():  # fewer are left that could accuse them\n"
        "            self._plan(suspect)\n", "",
        breaks="With fewer left to accuse, less is waited for", faults="several deaths",
        section="membership (ours), K",
    ),
    _swim(
        "swim-namesake-takes-the-place", _TABLE,
        "        if news.session != peer.session and news.address != peer.address"
        " and not peer.gone:\n            self._watch_conflict(peer, news)\n            return\n",
        "",
        breaks="A second process of a live name elsewhere is told and not obeyed",
        faults="two processes of one name", section="membership (ours), names",
    ),
    _bytes(
        "swim-members-without-a-bound", _TABLE,
        "            if oldest is None:\n                return False",
        "            if oldest is None:\n                return True",
        breaks="Members are bounded", faults="made-up members", section="membership (ours)",
    ),
    _node(
        "swim-hook-is-not-heeded", _TABLE,
        "if dead and peer is not None and peer.state is UNREACHABLE:",
        "if peer is not None and peer.state is UNREACHABLE:",
        breaks="Nobody is dead before the hook has said so", faults="a member cut off",
        section="membership (ours), confirm",
    ),
    _node(
        "swim-joined-on-an-older-life", _SYNC,
        "any((one.name, one.session) == mine and one.state < 2 for one in body.entries)",
        "any(one.name == context.name for one in body.entries)",
        breaks="A join is over when the answer lists this very process", faults="a restart",
        section="membership (ours), join",
        tests=("unit/test_detect_swim_n*.py", "unit/test_detect_swim_table.py"),
    ),
    _node(
        "swim-the-removed-are-not-tried-again", _SYNC,
        "        if table.dead:\n            names", "        if False:\n            names",
        breaks="A partition that heals is noticed", faults="a long partition",
        section="membership (ours), reconnect",
    ),
)  # fmt: skip

PROBES = (
    _probe(
        "swim-nobody-else-is-asked", _PROBE,
        "if probe.early and not probe.relaxed:", "if probe.early and probe.relaxed:",
        breaks="Before a member is accused others try to reach it", faults="one bad link",
    ),
    _probe(
        "swim-nacks-are-not-counted", _PROBE,
        "        probe.nacks.add(nack.sender)\n", "",
        breaks="Nacks that come say that the fault is not ours", faults="a dead member",
        section="Lifeguard IV.A",
    ),
    _probe(
        "swim-strangers-nack", _PROBE,
        "if probe is None or nack.sender not in probe.asked:", "if probe is None:",
        breaks="Only who was asked can say that it got no answer", faults="a made-up nack",
        section="membership (ours)",
    ),
    _probe(
        "swim-missing-nacks-cost-one-point", _PROBE,
        "context.view.adjust(missing if nacked else 1)", "context.view.adjust(1)",
        breaks="Each nack that does not come is a sign that the fault is ours",
        faults="a node that hears nobody", section="Lifeguard IV.A",
    ),
    _probe(
        "swim-anybody-answers", _PROBE,
        "        if probe is None or ack.sender != probe.peer.name:\n            return\n"
        "        self.answered(ack.seq, direct=probe.early)",
        "        if probe is None:\n            return\n"
        "        self.answered(ack.seq, direct=probe.early)",
        breaks="An answer of another name is none", faults="an address that was given away",
        section="membership (ours)",
    ),
    _probe(
        "swim-any-answer-is-passed-on", _PROBE,
        "        if sender != request.target:\n            return\n        del self._relays[seq]",
        "        del self._relays[seq]",
        breaks="Who was asked passes on the answer of the member in question alone",
        faults="an address that was given away", section="membership (ours)",
    ),
    _probe(
        "swim-no-last-look", _TABLE,
        "            self.look(peer)\n", "",
        breaks="A silent suspect is asked once more before it is removed",
        faults="an objection that gossip lost", section="membership (ours), last look",
    ),
    _probe(
        "swim-stopped-node-believes-its-probes", _NODE,
        "        self._prober.void()\n        context.view.adjust(1)",
        "        context.view.adjust(1)",
        breaks="Who was stopped accuses nobody on the probes of before",
        faults="a stop of its own",
        section="membership (ours), own stops",
    ),
    _probe(
        "swim-held-suspicion-runs-on", _TABLE,
        "                peer.suspicion.began_ns += lag_ns\n", "",
        breaks="While this node was stopped nobody could object to it", faults="a stop of its own",
        section="membership (ours), own stops",
    ),
    _node(
        "swim-unfit-node-accuses", _PROBE,
        "        if not context.view.allowed:\n            return\n        silence_ms",
        "        silence_ms",
        breaks="Who is not fit accuses nobody", faults="a starved process",
    ),
    _node(
        "swim-round-trips-are-not-measured", _PROBE,
        "return min(max(floor, usual), floor * _TIMEOUT_FACTOR_MAX)", "return floor",
        breaks="Slow links get longer timeouts", faults="a far data centre",
        section="membership (ours), after RFC 6298", tests=("unit/test_detect_planted.py",),
    ),
    _node(
        "swim-suspects-are-not-told", _TABLE,
        "if peer is None or peer.state is ALIVE:\n            return []\n        if not peer.gone",
        "if peer is None or not peer.gone:\n            return []\n        if not peer.gone",
        breaks="A suspect is told so in the very probe", faults="a frozen member that wakes",
        section="Lifeguard IV.C",
        tests=("unit/test_detect_planted.py",),
    ),
    _swim(
        "swim-answer-without-the-objection", _NODE,
        "forced = [(context.name, context.me_piece())] if context.claimed else []", "forced = []",
        breaks="An accusation is answered at once, in the acknowledgement",
        faults="an accusation", section="Lifeguard IV.C",
    ),
)  # fmt: skip

SUSPICION = (
    _part(
        "swim-accuser-counts-twice", _SUSPICION,
        "if known is not None and (known.refused or not accusation.refused):",
        "if known is not None and known.refused and not accusation.refused:",
        breaks="The same accuser counts once", faults="doubled gossip",
    ),
    _part(
        "swim-first-accuser-confirms-itself", _SUSPICION,
        "further = min(len(self.accusations) - 1, wanted)",
        "further = min(len(self.accusations), wanted)",
        breaks="Only further accusers shorten a suspicion", faults="one accuser",
    ),
    _part(
        "swim-k-is-not-capped", _SUSPICION,
        "wanted = min(settings.confirmations, others)", "wanted = settings.confirmations",
        breaks="No more confirmations are waited for than members could give",
        faults="small groups, several deaths", section="membership (ours), K",
    ),
    _part(
        "swim-one-refusal-is-enough", _SUSPICION,
        ">= min(2, others + 1)", ">= 1",
        breaks="A refused port makes it short once two have seen it",
        faults="a firewall on one way", section="membership (ours), refusals",
    ),
    _part(
        "swim-time-falls-in-a-line", _SUSPICION,
        "share = log(further + 1) / log(wanted + 1) if wanted else 1.0",
        "share = further / wanted if wanted else 1.0",
        breaks="Time falls with the logarithm of further accusers", faults="several accusers",
    ),
    _part(
        "swim-passes-on-silence-first", _SUSPICION,
        "key=lambda one: not one.refused", "key=lambda one: one.refused",
        breaks="Of the words that are passed on refusals come first", faults="many accusers",
        section="membership (ours), refusals",
    ),
    _part(
        "swim-isolated-node-convicts", _VIEW,
        "if peers > 1 and self.quiet_ns < quiet < ns(self._settings.isolated):",
        "if peers > 1 and quiet > ns(self._settings.isolated):",
        breaks="Who hears nobody of several convicts nobody", faults="a node cut off",
        section="membership (ours), isolation",
    ),
    _part(
        "swim-no-clean-time", _VIEW,
        "        return self.clean_ns\n", "        return now_ns\n",
        breaks="Who hears again needs clean time", faults="a cut that ends",
        section="membership (ours), isolation",
    ),
    _part(
        "swim-score-without-a-top", _VIEW,
        "self.score = min(SCORE_MAX, max(0, self.score + change))",
        "self.score = max(0, self.score + change)",
        breaks="Timeouts grow nine times at most", faults="a node that hears nobody",
        section="Lifeguard IV.A",
    ),
    _part(
        "swim-measured-score-is-ignored", _VIEW,
        "return 1 + max(self.score, self._floor)", "return 1 + self.score",
        breaks="What the process measured of itself stretches its timeouts",
        faults="a starved process", section="membership (ours)",
    ),
    _part(
        "swim-news-once-more-than-agreed", _GOSSIP,
        "if level + 1 >= transmit_max:", "if level + 1 > transmit_max:",
        breaks="Each piece of news is sent a bounded number of times", faults="none",
        section="SWIM 4.1",
    ),
    _part(
        "swim-news-beside-older-news", _GOSSIP,
        "        self.drop(name)\n        self._levels[0]", "        self._levels[0]",
        breaks="News of a member replace older news of it", faults="quick changes",
        section="SWIM 4.1",
    ),
    _part(
        "swim-returned-member-is-not-probed", _RING,
        "            peer.in_ring = False\n", "",
        breaks="Who comes back is probed again", faults="a mistaken removal", section="SWIM 4.3",
    ),
    _part(
        "swim-suspects-are-asked-to-help", _RING,
        "if peer is without or peer.gone or peer in found:",
        "if peer.gone or peer in found:",
        breaks="A member is not asked to probe itself", faults="a dead member",
        section="SWIM 3.1",
    ),
    _part(
        "swim-deadlines-never-move-back", _AGENDA,
        "if self._when.get(key) == when_ns:", "if self._when.get(key, NEVER) <= when_ns:",
        breaks="What is planned anew is due at the new time, and at no other", faults="none",
        section="agenda (ours)",
    ),
    _bytes(
        "swim-any-version-will-do", _WIRE,
        "if not data or data[0] != VERSION:", "if not data:",
        breaks="A packet of another version is dropped", faults="mixed versions",
    ),
    _bytes(
        "swim-packets-of-any-length", _WIRE,
        "if len(data) > most:", "if len(data) > 1 << 24:",
        breaks="What is too long is dropped unread", faults="a long packet",
    ),
)  # fmt: skip

CARRIED = (
    _sealed(
        "seal-any-tag-will-do", _SEAL,
        "if not hmac.compare_digest(tag, self._tag(head, body, bound)):", "if len(tag) != _TAG:",
        breaks="A change of any single bit is found", faults="a forged packet",
    ),
    _sealed(
        "seal-closes-with-the-last-key", _SEAL,
        "self._first = made[0]", "self._first = made[-1]",
        breaks="The first key closes and all open, so that keys can be changed",
        faults="a change of keys",
    ),
    _sealed(
        "seal-for-any-purpose", _SEAL,
        "if message[1] & 0x0F != purpose:", "if message[1] & 0x0F > 5:",
        breaks="A message for one purpose cannot be used for another", faults="a replayed message",
    ),
    _driven(
        "stream-of-any-length", _STREAM,
        "if size > BODY_BYTES_MAX + OVERHEAD_MAX:", "if size > 1 << 40:",
        breaks="No stranger decides how much is read", faults="garbage",
    ),
    _driven(
        "streams-without-a-bound", _STREAM,
        "if len(self._tasks) >= CONNECTIONS_MAX or self._server", "if self._server",
        breaks="Connections are bounded", faults="many that connect and say nothing",
    ),
    _driven(
        "driver-refusals-are-silence", _DRIVER,
        "        if refused:\n", "        if not refused:\n",
        breaks="A refused port is told from silence", faults="a killed process",
    ),
    _driven(
        "driver-fitness-is-lost-once", _DRIVER,
        "if allowed != was_allowed:", "if allowed and not was_allowed:",
        breaks="A process that is not fit accuses nobody", faults="a starved process",
    ),
    _small(
        "driver-dials-names", "detect/members_net.py",
        "ip_address(address.host)", 'ip_address("127.0.0.1")',
        breaks="What members say of each other looks up no names", faults="a made-up address",
    ),
    _small(
        "feed-loses-silently", "detect/members_feed.py",
        "self._missed += len(self._queue) == self._queue.maxlen", "self._missed += 0",
        breaks="A slow reader is told how much it has missed", faults="a slow reader",
    ),
)  # fmt: skip
