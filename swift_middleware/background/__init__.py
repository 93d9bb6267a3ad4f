"""What goes on beside the requests.

Each of these is a function of the store, for one round; :mod:`runner` calls those that go on
all the time in one process of all.
"""
