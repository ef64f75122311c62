// The same in CommonJS.
const report = (error) => console.log(`${error.name} ${error.code}: ${error.message}`)
try {
  require('spikenorm')
  console.log('it loads')
} catch (error) {
  report(error)
}
import('spikenorm')
  .then(() => console.log('it loads'), report)
  .then(() => setTimeout(() => console.log('the program goes on'), 10))
