"""The control core: events in, effects out.

Plain single-threaded Python. It does no I/O, knows no clock but the `now_s` that comes with every
event, and draws no random numbers; the driver around it does all of that, persistence first.
"""
