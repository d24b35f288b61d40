"use strict";
// The forward pass of the bundled model, a GPT-NeoX decoder: serial residuals, rotary positions in whole heads, tied
// embeddings, GELU. It computes in double precision from the float32 weights.
// Letters: t position, s source position, d model width, h head, k head width, m neuron, v vocabulary.
// A matrix has the layout of model.safetensors, [out in]; an activation is one array per position.

/** Name → { shape, values } of the tensors in the bytes of a safetensors file, all float32. */
function readTensors(bytes) {
  const begin = 8 + Number(new DataView(bytes.buffer).getBigUint64(0, true));
  const { __metadata__, ...header } = JSON.parse(new TextDecoder().decode(bytes.subarray(8, begin)));
  const tensors = {};
  for (const [name, { shape, data_offsets: [first, end] }] of Object.entries(header)) {
    const values = new Float32Array(bytes.buffer.slice(begin + first, begin + end));
    tensors[name.replace("gpt_neox.", "")] = { shape, values };
  }
  return tensors;
}

/** W x + b, [out]. */
function linear(x, weight, bias) {
  const [out, width] = weight.shape;
  const y = new Float64Array(out);
  for (let i = 0; i < out; i++) {
    let sum = bias ? bias.values[i] : 0;
    for (let j = 0; j < width; j++) sum += weight.values[i * width + j] * x[j];
    y[i] = sum;
  }
  return y;
}

/** σ = √(var + eps) of x [d]. */
function normScale(x, eps) {
  const mean = x.reduce((sum, value) => sum + value, 0) / x.length;
  return Math.sqrt(x.reduce((sum, value) => sum + (value - mean) ** 2, 0) / x.length + eps);
}

/** LayerNorm of x [d], with a given σ in place of its own. */
function layerNorm(x, tensors, name, scale) {
  const gain = tensors[`${name}.weight`].values, bias = tensors[`${name}.bias`].values;
  const mean = x.reduce((sum, value) => sum + value, 0) / x.length;
  return x.map((value, d) => ((value - mean) / scale) * gain[d] + bias[d]);
}

/** The error function, within 1.5e-7 (Abramowitz and Stegun 1964, formula 7.1.26). */
function erf(x) {
  const u = 1 / (1 + 0.3275911 * Math.abs(x));
  const series = ((((1.061405429 * u - 1.453152027) * u + 1.421413741) * u - 0.284496736) * u + 0.254829592) * u;
  return Math.sign(x) * (1 - series * Math.exp(-x * x));
}

function gelu(x) {
  return (x / 2) * (1 + erf(x / Math.SQRT2));
}

/** x [k] at position t, each pair of entries i and i + k/2 rotated by t·10000^(−2i/k) (Su et al. 2021). */
function rotate(x, t) {
  const half = x.length / 2, y = new Float64Array(x.length);
  for (let i = 0; i < half; i++) {
    const angle = t * 10000 ** (-i / half), cos = Math.cos(angle), sin = Math.sin(angle);
    y[i] = x[i] * cos - x[i + half] * sin;
    y[i + half] = x[i + half] * cos + x[i] * sin;
  }
  return y;
}

function dot(x, y) {
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += x[i] * y[i];
  return sum;
}

/** What attention adds to the stream at each position; `read`: the normed stream. */
function attention(config, tensors, name, read) {
  const heads = config.num_attention_heads, width = config.hidden_size / heads;
  const [weight, bias] = ["weight", "bias"].map(part => tensors[`${name}.query_key_value.${part}`]);
  // Rows of the fused matrix: head after head, each with its queries, keys and values.
  const fused = read.map(x => linear(x, weight, bias));
  const part = (x, h, which) => x.subarray((3 * h + which) * width, (3 * h + which + 1) * width);
  const z = read.map(() => new Float64Array(config.hidden_size));
  for (let h = 0; h < heads; h++) {
    const queries = fused.map((x, t) => rotate(part(x, h, 0), t)), keys = fused.map((x, t) => rotate(part(x, h, 1), t));
    queries.forEach((query, t) => {
      const pattern = softmax(keys.slice(0, t + 1).map(key => dot(query, key) / Math.sqrt(width)));
      pattern.forEach((share, s) => part(fused[s], h, 2).forEach((value, k) => { z[t][h * width + k] += share * value; }));
    });
  }
  return z.map(x => linear(x, tensors[`${name}.dense.weight`], tensors[`${name}.dense.bias`]));
}

function softmax(scores) {
  const top = Math.max(...scores), weights = scores.map(score => Math.exp(score - top));
  const sum = weights.reduce((total, weight) => total + weight, 0);
  return weights.map(weight => weight / sum);
}

/**
 * Runs the model over token ids: { logits: one [v] per position, scales: σ of the final norm at each position }.
 *
 * `factors`: what the activation of each neuron of the last layer is multiplied by, [m]. `scales`: what the final norm
 * divides by at each position instead of its own σ, [t]; a norm with given scales is frozen.
 */
function forward({ config, tensors }, tokens, { factors = null, scales = null } = {}) {
  const eps = config.layer_norm_eps ?? 1e-5, last = config.num_hidden_layers - 1;
  const width = config.hidden_size, embed = tensors["embed_in.weight"];
  const normed = (stream, name) => stream.map(x => layerNorm(x, tensors, name, normScale(x, eps)));
  const add = (stream, more) => stream.map((x, t) => x.map((value, d) => value + more[t][d]));
  let stream = tokens.map(token => Float64Array.from(embed.values.subarray(token * width, (token + 1) * width)));
  for (let i = 0; i <= last; i++) {
    const at = `layers.${i}`, [into, out] = ["dense_h_to_4h", "dense_4h_to_h"].map(name => `${at}.mlp.${name}`);
    stream = add(stream, attention(config, tensors, `${at}.attention`, normed(stream, `${at}.input_layernorm`)));
    const neurons = normed(stream, `${at}.post_attention_layernorm`).map(x => {
      const post = linear(x, tensors[`${into}.weight`], tensors[`${into}.bias`]).map(gelu);
      return factors && i === last ? post.map((activation, m) => activation * factors[m]) : post;
    });
    stream = add(stream, neurons.map(post => linear(post, tensors[`${out}.weight`], tensors[`${out}.bias`])));
  }
  const used = scales ?? stream.map(x => normScale(x, eps));
  const logits = stream.map((x, t) => linear(layerNorm(x, tensors, "final_layer_norm", used[t]), embed));
  return { logits, scales: used };
}
