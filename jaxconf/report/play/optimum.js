"use strict";
// The best possible prediction in the noise world: forward filtering over the level of noise and the place in the
// stretch (Rabiner 1989, section III.A), as jaxconf/data/noise.py does it.
// Letters: l level, p place in the stretch (0 before its first word, 1 behind a word, 2 at its end), w word, v vocabulary.
// Ids: the words from 0 on, then a marker for each level, then END.

/**
 * The probabilities of the next token after each token: one [v] per position, from the first token that such a text
 * cannot have there on null. An END that begins the text says nothing: the text may begin anywhere in a document.
 */
function optimum(world, tokens) {
  const { words, noise, ends, step } = world, end = words + noise.length, levels = [...noise.keys()];
  let belief = world.start.map(places => [...places]), afterEnd = world.ended, last = "unknown";

  function probabilityOf(l, p, w) {
    if (last === "unknown") return world.unseen[l][p][w];
    if (last === "none") return world.background[w];
    return (1 - noise[l]) * (world.next[last] === w) + noise[l] * world.behind[l][world.kinds[last]][w];
  }

  function observe(token) {
    if (token === end) {
      const likely = levels.reduce((sum, l) => sum + belief[l][2], 0);
      [belief, afterEnd, last] = [levels.map(() => [0, 0, 0]), 1, "none"];
      return likely;
    }
    if (token >= words) {
      const likely = levels.reduce((sum, l) => sum + belief[l][2], 0) + afterEnd;
      [belief, afterEnd] = [levels.map(l => [Number(l === token - words), 0, 0]), 0];
      return likely;
    }
    const moved = levels.map(l => {
      const before = [0, 1].map(p => belief[l][p] * probabilityOf(l, p, token));
      return [0, 1, 2].map(to => before[0] * step[0][to] + before[1] * step[1][to]);
    });
    const likely = moved.flat().reduce((sum, x) => sum + x, 0);
    [belief, afterEnd, last] = [moved.map(places => places.map(x => x / likely)), 0, token];
    return likely;
  }

  function predicted() {
    const found = new Float64Array(end + 1), over = levels.reduce((sum, l) => sum + belief[l][2], 0);
    for (const l of levels) {
      for (const p of [0, 1]) {
        if (belief[l][p]) for (let w = 0; w < words; w++) found[w] += belief[l][p] * probabilityOf(l, p, w);
      }
      found[words + l] = (over * (1 - ends) + afterEnd) / noise.length;
    }
    found[end] = over * ends;
    return found;
  }

  let possible = true;
  return tokens.map((token, t) => {
    if (possible && (t > 0 || token !== end)) possible = observe(token) > 0;
    return possible ? predicted() : null;
  });
}

/** A text of the world: the marker of a level and `count` words behind it, drawn with `random`, as token ids. */
function drawnStretch(world, level, count, random) {
  const drawn = weights => {
    let left = random();
    const found = weights.findIndex(weight => (left -= weight) < 0);
    return found < 0 ? weights.length - 1 : found;
  };
  const tokens = [world.words + level];
  for (let i = 0; i < count; i++) {
    const last = tokens[i];
    if (i === 0) tokens.push(drawn(world.background));
    else tokens.push(random() < world.noise[level] ? drawn(world.behind[level][world.kinds[last]]) : world.next[last]);
  }
  return tokens;
}
