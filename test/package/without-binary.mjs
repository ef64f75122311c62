// What a user sees where the package of the platform is missing: the message of the error, after its code.
try {
  await import('spikenorm')
  console.log('it loads')
} catch (error) {
  console.log(`${error.name} ${error.code}: ${error.message}`)
}
