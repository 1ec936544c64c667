"""The tables of the SQLite file, by duty.

Every function works inside the transaction that is open on its connection, and checks nothing that
`store.refusals` decides.
"""
