// Matrices of all heads, row-major, in float64.

/** The product of each head's matrices: `[heads, rows, inner]` and `[heads, inner, columns]`. */
export function product(
  left: ArrayLike<number>,
  right: ArrayLike<number>,
  heads: number,
  inner: number,
  columns: number,
): Float64Array {
  const rows = left.length / heads / inner;
  const result = new Float64Array(heads * rows * columns);
  for (let head = 0; head < heads; head++) {
    for (let row = head * rows; row < (head + 1) * rows; row++) {
      for (let i = 0; i < inner; i++) {
        const factor = left[row * inner + i];
        const from = (head * inner + i) * columns;
        for (let j = 0, at = row * columns; j < columns; j++) result[at++] += factor * right[from + j];
      }
    }
  }
  return result;
}

export function sum(left: ArrayLike<number>, right: ArrayLike<number>): Float64Array {
  const result = new Float64Array(left.length);
  for (let i = 0; i < result.length; i++) result[i] = left[i] + right[i];
  return result;
}

/** Columns [from, to) of matrices with so many columns. */
export function columnsOf(
  matrix: ArrayLike<number>,
  columns: number,
  from: number,
  to: number,
): Float64Array {
  const width = to - from;
  const result = new Float64Array((matrix.length / columns) * width);
  for (let at = 0; at < result.length; at++) {
    result[at] = matrix[Math.floor(at / width) * columns + from + (at % width)];
  }
  return result;
}
