"""Reading and writing of one REST connection: nothing is read while it was paused, nor while its caller does not take what was written."""

from asyncio import Transport

from uvicorn.protocols.http.flow_control import FlowControl


class Flow(FlowControl):
    """uvicorn's flow control, but that reading goes on only when nothing stands against it: its own `resume_reading` knows of no writing."""

    def __init__(self, transport: Transport) -> None:
        super().__init__(transport)
        self._unsent = 0
        self._unsent_since = 0.0

    def pause_reading(self) -> None:
        if not self.read_paused:
            self.read_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self.read_paused:
            self.read_paused = False
            self._go_on()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._go_on()

    def _go_on(self) -> None:
        if not (self.read_paused or self.write_paused or self._transport.is_closing()):
            self._transport.resume_reading()

    @property
    def is_stopped(self) -> bool:
        """Nothing is read: what does not arrive now is not the caller's fault."""
        return self.read_paused or self.write_paused

    def stuck_s(self, now: float) -> float:
        """For how long the caller has taken nothing of what was written, as far as those who ask saw. 0: nothing waits, or it moves."""
        unsent = self._transport.get_write_buffer_size()
        if not unsent or unsent != self._unsent:
            self._unsent, self._unsent_since = unsent, now
        return now - self._unsent_since
