"use strict";
// What is said about two predictions. Letters: v vocabulary. All logarithms are natural.

/** The log-probabilities of logits [v], in nats. */
function logProbabilities(logits) {
  const top = logits.reduce((most, x) => Math.max(most, x), -Infinity);
  const norm = top + Math.log(logits.reduce((sum, x) => sum + Math.exp(x - top), 0));
  return logits.map(x => x - norm);
}

/** The entropy of probabilities [v], in nats. */
function entropy(probabilities) {
  return probabilities.reduce((sum, p) => sum - (p > 0 ? p * Math.log(p) : 0), 0);
}

/** The token ids, the likeliest first; of equally likely ones the smaller id comes first. */
function ranking(values) {
  return [...values.keys()].sort((a, b) => values[b] - values[a] || a - b);
}

/** Spearman's correlation of two rankings of the same tokens. */
function rankCorrelation(one, other) {
  const n = one.length, place = new Map(other.map((token, rank) => [token, rank]));
  const squares = one.reduce((sum, token, rank) => sum + (rank - place.get(token)) ** 2, 0);
  return 1 - (6 * squares) / (n * (n * n - 1));
}

/**
 * The temperature that turns log-probabilities `before` [v] into `after` best, and the share of the change that it
 * explains (at most 1; NaN without a change): { temperature, explained }.
 *
 * By least squares, weighted by the probabilities before, as in analysis/temperature.py; between 1/16 and 16.
 */
function bestTemperature(before, after) {
  const left = logBeta => {
    const tempered = logProbabilities(before.map(x => x * Math.exp(logBeta)));
    return before.reduce((sum, lp, v) => sum + Math.exp(lp) * (after[v] - tempered[v]) ** 2, 0);
  };
  const whole = before.reduce((sum, lp, v) => sum + Math.exp(lp) * (after[v] - lp) ** 2, 0);
  if (whole === 0) return { temperature: 1, explained: NaN };
  const widest = Math.log(16), step = widest / 24;
  let best = 0;
  for (let i = -24; i <= 24; i++) if (left(i * step) < left(best)) best = i * step;
  let [low, high] = [best - step, best + step];
  for (let i = 0; i < 60; i++) {
    const [a, b] = [low + (high - low) * 0.382, high - (high - low) * 0.382];
    if (left(a) < left(b)) high = b; else low = a;
  }
  return { temperature: Math.exp(-(low + high) / 2), explained: 1 - left((low + high) / 2) / whole };
}
