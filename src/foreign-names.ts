/** Names that PyTorch, SpikingJelly, Keras and others have for options, as users of those write them here. */

/** What users of other libraries call an option of this one; names without case and underscores. */
const CALLED_OTHERWISE: Readonly<Record<string, readonly string[]>> = {
  learningrate: ['lr'],
  initiallearningrate: ['lr'],
  epsilon: ['eps'],
  surrogatefunction: ['surrogate'],
  surrogategradient: ['surrogate'],
  threshold: ['vThreshold', 'vTh'],
  vth: ['vThreshold', 'vTh'],
  voltagethreshold: ['vThreshold', 'vTh'],
  reset: ['vReset'],
  resetvoltage: ['vReset'],
  usebias: ['bias'],
  strides: ['stride'],
  pad: ['padding'],
  beta1: ['betas'],
  beta2: ['betas'],
  l2: ['weightDecay'],
  wd: ['weightDecay'],
  trainable: ['affine'],
  minlr: ['etaMin'],
  channels: ['numFeatures', 'inChannels'],
  numchannels: ['numFeatures', 'inChannels'],
  features: ['numFeatures'],
  timesteps: ['T'],
  mode: ['stepMode'],
  dataformat: ['channelsLast'],
  type: ['dtype'],
}

/** Options of others that have no counterpart here; names without case and underscores. */
const UNSUPPORTED: ReadonlySet<string> = new Set([
  'amsgrad',
  'backend',
  'capturable',
  'ceilmode',
  'countincludepad',
  'differentiable',
  'dilation',
  'divisoroverride',
  'foreach',
  'fused',
  'generator',
  'groups',
  'ignoreindex',
  'inplace',
  'labelsmoothing',
  'lastepoch',
  'layout',
  'maplocation',
  'maximize',
  'memoryformat',
  'outputpadding',
  'paddingmode',
  'params',
  'pinmemory',
  'reduction',
  'requiresgrad',
  'returnindices',
  'storevseq',
  'verbose',
  'weightsonly',
])

/** A name without what tells the spellings of languages from each other. */
const plain = (name: string) => name.replaceAll(/[_\-\s]/g, '').toLowerCase()

/**
 * What a name from elsewhere means here: one of `known`, as in Python's spelling of it, or `'unsupported'`, or nothing that
 * is known.
 */
export function meaningOf(name: string, known: readonly string[]): string | undefined {
  const wanted = plain(name)
  const same = known.find((candidate) => plain(candidate) === wanted)
  if (same !== undefined) return same
  const counterparts = Object.hasOwn(CALLED_OTHERWISE, wanted) ? CALLED_OTHERWISE[wanted] : undefined
  const counterpart = counterparts?.find((candidate) => known.includes(candidate))
  if (counterpart !== undefined) return counterpart
  return UNSUPPORTED.has(wanted) ? 'unsupported' : undefined
}
