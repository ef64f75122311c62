// The addon, with answers of machines that are not here. SPIKENORM_NATIVE_LIBRARY_PATH makes the loader take this file.

const { SPIKENORM_TEST_ADDON: file, SPIKENORM_TEST_ALTERED: altered } = process.env
const addon = require(file)
const { report, version, wrong } = JSON.parse(altered)

module.exports = {
  ...addon,
  // JSON has no undefined, which is what the addon gives for what is not there.
  cudaReport: () => {
    const entries = Object.entries({ ...addon.cudaReport(), ...report })
    return Object.fromEntries(entries.filter(([, value]) => value !== null))
  },
  addonVersion: () => version ?? addon.addonVersion(),
  // What a broken binary might do: the second half of every result is 0.
  tensorRead: (handle, target) => {
    addon.tensorRead(handle, target)
    if (wrong) new Uint8Array(target).fill(0, target.byteLength / 2)
  },
}
