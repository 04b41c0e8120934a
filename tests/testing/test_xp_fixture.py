import rankdiag as rd


def test_every_backend(xp):
    a = [[3.0, 0.1], [0.2, 1.0]]
    xp.assert_close(rd.effective_rank(xp.asarray(a)), rd.effective_rank(xp.rounded(a)))
