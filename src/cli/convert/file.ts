/** Checkpoints on disk. */
import { loadSafetensors, saveSafetensors } from '../../index.js'
import type { Dict } from './rename.js'

export function load(path: string): Dict {
  return loadSafetensors(path)
}

export function save(path: string, dict: Dict): void {
  saveSafetensors(path, dict)
}
