// Matrices of all heads, row-major, in float64.

type Numbers = Float32Array | Float64Array;

/** The product of each head's matrices: `[heads, rows, inner]` and `[heads, inner, columns]`. */
export function product(
  left: Numbers,
  right: Numbers,
  heads: number,
  inner: number,
  columns: number,
): Float64Array {
  const [factors, from] = [new Float64Array(left), new Float64Array(right)];
  const rows = left.length / heads / inner;
  const result = new Float64Array(heads * rows * columns);
  for (let head = 0; head < heads; head++) {
    for (let row = head * rows; row < (head + 1) * rows; row++) {
      const to = result.subarray(row * columns, (row + 1) * columns);
      for (let i = 0; i < inner; i++) {
        const factor = factors[row * inner + i];
        const first = (head * inner + i) * columns;
        for (let j = 0; j < columns; j++) to[j] += factor * from[first + j];
      }
    }
  }
  return result;
}

export function sum(left: Numbers, right: Numbers): Float64Array {
  const result = new Float64Array(left);
  for (let i = 0; i < result.length; i++) result[i] += right[i];
  return result;
}

/** Columns [from, to) of matrices with so many columns. */
export function columnsOf(matrix: Float32Array, columns: number, from: number, to: number): Float32Array {
  const result = new Float32Array((matrix.length / columns) * (to - from));
  for (let row = 0, at = 0; at < result.length; row++) {
    for (let j = from; j < to; j++) result[at++] = matrix[row * columns + j];
  }
  return result;
}
