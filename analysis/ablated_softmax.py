"""Softmax statistics of every single-neuron ablation, streamed over the vocabulary in plain XLA."""

import jax.numpy as jnp
from jax import lax

FAR = -1e20  # "minus infinity" that stays finite when multiplied
WIDE = {"xla_cpu_prefer_vector_width": 512}  # optional: jax.jit(effects, compiler_options=WIDE)


def _pack(x, y):  # two f32 statistics in one array => one fusion => each exp is computed once
    return lax.complex(x, y)


def _te(C, a, m, b, u, p):  # sum e, sum q e   with q = z_te - shift
    S, Q = 0.0, 0.0
    for j in range(a.shape[0]):
        cm, bs = p["c_te"] * m[j], b[j] - p["s_te"]
        e = jnp.exp((a[j][:, None] * p["i_te"] + cm) + bs)
        S, Q = S + e, Q + ((a[j][:, None] * p["i_te"] + bs) + cm) * e  # other order: keeps q out of memory
    return _pack(lax.real(C) + S, lax.imag(C) + Q)


def _ln(C, a, m, b, u, p):  # the same for z_ln
    S, Q = 0.0, 0.0
    for j in range(a.shape[0]):
        ab, cm = (a[j] * p["i_ln"] + b[j])[:, None], p["c_ln"] * m[j]
        e = jnp.exp((ab + cm) - p["s_ln"])
        S, Q = S + e, Q + ((ab - p["s_ln"]) + cm) * e
    return _pack(lax.real(C) + S, lax.imag(C) + Q)


def _fr(C, a, m, b, u, p):  # sum e of z_fr; count(z_te > z_te[target]) + 1/2 * any(z_te > z_te[top])
    S, k, hit = 0.0, 0.0, False
    for j in range(a.shape[0]):
        z = a[j][:, None] * p["i_te"] + p["c_te"] * m[j] + b[j]
        S = S + jnp.exp(z + (p["kappa"] * u[j] - p["s_fr"]))
        k = k + jnp.where(z > p["z_target"], 1.0, 0.0)
        hit = hit | (z > p["z_top"])
    n = jnp.floor(lax.imag(C))
    return _pack(lax.real(C) + S, n + k + jnp.maximum(lax.imag(C) - n, jnp.where(hit, 0.5, 0.0)))


def _max(C, a, m, b, u, p):  # (max z_te, max z_ln), max z_fr  -- only on the rescue path
    x, y, w = C
    for j in range(a.shape[0]):
        z = a[j][:, None] * p["i_te"] + p["c_te"] * m[j] + b[j]
        x, w = jnp.maximum(x, z), jnp.maximum(w, z + p["kappa"] * u[j])
        y = jnp.maximum(y, (a[j] * p["i_ln"] + b[j])[:, None] + p["c_ln"] * m[j])
    return x, y, w


def ablated_softmax(A, w, W_U, b, u, inv, inv_te, delta, kappa, target, top, *, block_t=256, block_n=64, block_v=1024, unroll=16):
    """Shapes: A [T,V], w [N,d], W_U [d,V], b [V], u [V], inv [T], inv_te/delta/kappa [T,N], target/top [T].

    Returns a dict of [T,N]: lse_te, mean_te, lse_ln, mean_ln, lse_fr, n_above_target, top_changed.
    """
    T, V = A.shape
    N, d = w.shape
    Tb, Nb, U = min(block_t, T), min(block_n, N), unroll
    nT, nN, nV = -(-T // Tb), -(-N // Nb), -(-V // block_v)
    K = -(-V // (nV * U))  # chunks of U tokens per vocabulary block
    hi = lax.Precision.HIGHEST

    # The two tokens with a special role leave the stream and are added by hand: no self-comparisons.
    t = jnp.arange(T)
    A_top, A_tgt = A[t, top], A[t, target]
    far = FAR / inv
    A = A.at[t, top].set(far).at[t, target].set(far)

    def pad(x, *sizes, value=0.0):
        return jnp.pad(x, [(0, s - n) for s, n in zip(sizes, x.shape)], constant_values=value)

    Vp, Tp, Np = nV * K * U, nT * Tb, nN * Nb
    A = pad(A.T, Vp, Tp).reshape(nV, K, U, nT, Tb).transpose(3, 0, 1, 2, 4)  # [nT,nV,K,U,Tb]
    Wv = pad(W_U.T, Vp, d).reshape(nV, K * U, d)
    bv = pad(b, Vp, value=FAR).reshape(nV, K, U)
    uv = pad(u, Vp).reshape(nV, K, U)
    rows = dict(
        i_ln=pad(inv, Tp, value=1.0), A_top=pad(A_top, Tp), A_tgt=pad(A_tgt, Tp), top=pad(top, Tp, value=0), tgt=pad(target, Tp, value=0)
    )
    rows = {k: v.reshape(nT, Tb) for k, v in rows.items()}
    cells = dict(i_te=pad(inv_te, Tp, Np, value=1.0), delta=pad(delta, Tp, Np), kappa=pad(kappa, Tp, Np))
    cells = {k: v.reshape(nT, Tb, nN, Nb).transpose(0, 2, 1, 3) for k, v in cells.items()}
    w = pad(w, Np, d).reshape(nN, Nb, d)

    def tile(A, r, i_te, delta, kappa, w):  # A [nV,K,U,Tb]; r: [Tb]; i_te, delta, kappa [Tb,Nb]; w [Nb,d]
        p = dict(i_te=i_te, c_te=delta * i_te, i_ln=r["i_ln"], c_ln=delta * r["i_ln"][:, None], kappa=kappa)

        def at(a, v):  # z_te, z_ln, z_fr of one token per position
            m = jnp.matmul(W_U.T[v], w.T, precision=hi)
            z = a[:, None] * i_te + p["c_te"] * m + b[v][:, None]
            return z, (a * r["i_ln"] + b[v])[:, None] + p["c_ln"] * m, z + kappa * u[v][:, None]

        z_top, z_tgt = at(r["A_top"], r["top"]), at(r["A_tgt"], r["tgt"])
        p["z_top"], p["z_target"] = z_top[0], z_tgt[0]
        same = (r["top"] == r["tgt"])[:, None]

        def sweep(step, zero, merge, p):
            def block(total, x):
                A, Wv, bv, uv = x
                M = jnp.matmul(Wv, w.T, precision=hi).reshape(K, U, Nb)
                part, _ = lax.scan(lambda C, y: (step(C, y[0], y[1], y[2], y[3], p), None), zero, (A, M, bv, uv))
                return merge(total, part), None

            return lax.scan(block, zero, (A, Wv, bv, uv))[0]

        def step(C, a, m, b, u, p):
            return tuple(f(c, a, m, b, u, p) for f, c in zip((_te, _ln, _fr), C))

        def merge(x, y):
            m, n = jnp.floor(lax.imag(x[2])), jnp.floor(lax.imag(y[2]))
            flag = jnp.maximum(lax.imag(x[2]) - m, lax.imag(y[2]) - n)
            return x[0] + y[0], x[1] + y[1], _pack(lax.real(x[2]) + lax.real(y[2]), m + n + flag)

        def sums(shift):
            q = dict(p, s_te=shift[0], s_ln=shift[1], s_fr=shift[2])
            zero = (jnp.zeros((Tb, Nb), jnp.complex64),) * 3
            te, ln, fr = sweep(step, zero, merge, q)
            S = [lax.real(te), lax.real(ln), lax.real(fr)]
            Q = [lax.imag(te), lax.imag(ln)]
            for z, on in ((z_top, True), (z_tgt, ~same)):
                e = [jnp.where(on, jnp.exp(z[i] - shift[i]), 0.0) for i in range(3)]
                S = [S[i] + e[i] for i in range(3)]
                Q = [Q[i] + jnp.where(on, (z[i] - shift[i]) * e[i], 0.0) for i in range(2)]
            return dict(
                lse_te=shift[0] + jnp.log(S[0]),
                mean_te=shift[0] + Q[0] / S[0],
                lse_ln=shift[1] + jnp.log(S[1]),
                mean_ln=shift[1] + Q[1] / S[1],
                lse_fr=shift[2] + jnp.log(S[2]),
                n=lax.imag(fr),
            )

        def rescue():  # some logit is > ~80 nats above z[top]: take the true maxima as shifts
            top3 = sweep(_max, (jnp.full((Tb, Nb), -jnp.inf),) * 3, lambda x, y: tuple(map(jnp.maximum, x, y)), p)
            return sums([jnp.maximum(jnp.maximum(a, c), e) for a, c, e in zip(top3, z_top, z_tgt)])

        out = sums(z_top)  # the unablated argmax: a lower bound of the maximum, almost always the maximum
        ok = jnp.isfinite(sum(out[k] for k in ("lse_te", "mean_te", "lse_ln", "mean_ln", "lse_fr"))).all()
        out = lax.cond(ok, lambda: out, rescue)
        n = out.pop("n")
        whole = jnp.floor(n)
        beats = ~same & (z_tgt[0] > z_top[0])
        out["n_above_target"] = (whole + (~same & (z_top[0] > z_tgt[0]))).astype(jnp.int32)
        out["top_changed"] = (n > whole) | beats
        return out

    def t_block(x):
        A, r, c = x
        return lax.map(lambda y: tile(A, r, y[0]["i_te"], y[0]["delta"], y[0]["kappa"], y[1]), (c, w))

    out = lax.map(t_block, (A, rows, cells))  # [nT,nN,Tb,Nb]
    import types

    return types.SimpleNamespace(**{k: v.transpose(0, 2, 1, 3).reshape(Tp, Np)[:T, :N] for k, v in out.items()})
