//! Events time what lies between them.

use std::time::Instant;

use spikenorm_core::ErrorCode;
use spikenorm_cuda::driver::Event;

use crate::support::{device, tensor};

#[test]
fn events_time_what_lies_between_them() {
    let Some(cuda) = device() else { return };
    let x = tensor(&cuda, &[1.0; 4096]);
    let events: Vec<_> = (0..3).map(|_| Event::new(&cuda).unwrap()).collect();
    let clock = Instant::now();
    events[0].record().unwrap();
    for _ in 0..50 {
        cuda.accumulate(&x, &x).unwrap();
    }
    events[1].record().unwrap();
    events[2].record().unwrap();
    let much = events[0].elapsed_ms(&events[1]).unwrap();
    let little = events[1].elapsed_ms(&events[2]).unwrap();
    let all = clock.elapsed().as_secs_f32() * 1000.0;
    assert!(0.0 < much && much <= all && 0.0 <= little && little < much, "{little} {much} {all}");
    // Recorded again, an event is where it was recorded last.
    events[0].record().unwrap();
    events[0].synchronize().unwrap();
    assert!(events[0].elapsed_ms(&events[2]).unwrap() <= 0.0);
}

#[test]
fn an_event_that_was_not_recorded_times_nothing() {
    let Some(cuda) = device() else { return };
    let (a, b) = (Event::new(&cuda).unwrap(), Event::new(&cuda).unwrap());
    a.record().unwrap();
    for (start, end, which) in [(&a, &b, "end: "), (&b, &a, "start: "), (&b, &b, "start: ")] {
        let error = start.elapsed_ms(end).expect_err("b was not recorded");
        assert_eq!(error.code, ErrorCode::Argument);
        assert!(error.message.starts_with(which) && error.message.contains("record()"), "{error}");
    }
}
