// Where the suite's own files lie; the one place that knows, because compiled copies run from other folders.

export const BENCH = new URL('./', import.meta.url)
export const ROOT = new URL('../', import.meta.url)
