"""Bounds of every connection: nothing on the wire grows without one."""

from dataclasses import dataclass

from outlast.kernel import ConfigError

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """What one listener or dialler allows. Checked at creation.

    Args:
        frame_bytes_max: Largest body of one frame, in bytes.
        handshake_bytes_max: Largest body of a handshake message, in bytes.
        connections_max: Connections one listener holds at once, handshakes included.
        send_buffer_bytes_max: Bytes one connection may hold unsent before it is closed.
        handshake_timeout: Seconds from the first byte of a connection to its welcome.
        keepalive: Seconds of silence after which this side sends a ping.
        idle_timeout: Seconds without one complete frame after which the other side counts
            as gone. At least three times ``keepalive``, so that one lost ping convicts nobody.
        close_timeout: Seconds that a closing connection may still take to send what is queued.

    Raises:
        ConfigError: A bound is not positive, or two of them contradict each other.
    """

    frame_bytes_max: int = 8 * MIB
    handshake_bytes_max: int = 4096
    connections_max: int = 4096
    send_buffer_bytes_max: int = 64 * MIB
    handshake_timeout: float = 5.0
    keepalive: float = 5.0
    idle_timeout: float = 20.0
    close_timeout: float = 5.0

    def __post_init__(self) -> None:
        """Check each value and the relations between them."""
        for name in self.__slots__:
            value = getattr(self, name)
            if value <= 0:
                raise ConfigError(f"Limits: {name} is {value}; it must be above 0")
        if self.frame_bytes_max > 0xFFFF_FFFF:
            raise ConfigError(
                f"Limits: frame_bytes_max is {self.frame_bytes_max}; a frame's length has "
                f"32 bits, so at most {0xFFFF_FFFF}"
            )
        if self.send_buffer_bytes_max < self.frame_bytes_max:
            raise ConfigError(
                f"Limits: send_buffer_bytes_max ({self.send_buffer_bytes_max}) is below "
                f"frame_bytes_max ({self.frame_bytes_max}), so that frame could never be sent"
            )
        if self.idle_timeout < 3 * self.keepalive:
            raise ConfigError(
                f"Limits: idle_timeout ({self.idle_timeout} s) is below three times "
                f"keepalive ({self.keepalive} s)"
            )
