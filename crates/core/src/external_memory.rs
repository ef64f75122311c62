//! What V8 is told of memory outside its heap, so that it collects in time what nobody disposes of, and leaves programs
//! alone that free what they make.
//!
//! V8 starts a collection when what it has been told of is 64 MB above its lowest since the last one. A training step
//! that takes and gives back hundreds of megabytes would start one each time, and marking keeps a core busy for 10 to
//! 30 ms (seen on Node 20: a third of the time of two cores). So V8 is told of a share of the bytes, such that it starts
//! when they have grown by [`ExternalMemory::room`].

/// What V8 lets grow before it collects.
const SOFT_LIMIT: usize = 64 << 20;
/// What is let grow at most, and in programs that dispose of nearly all they make.
const MOST_ROOM: usize = 512 << 20;
/// Of so many bytes freed, one at most has been found by the collector in such a program.
const DISPOSED_TO_COLLECTED: usize = 8;
/// Bytes freed after which older ones count half.
const MEMORY: usize = 16 * MOST_ROOM;
/// Changes V8 is not told of: telling it costs more than a small operation.
const UNTOLD: i64 = 1 << 20;

#[derive(Debug, Default)]
pub struct ExternalMemory {
    live: usize,
    /// Live bytes after the collector last freed something, or less where they have been less since.
    reached: usize,
    /// Bytes freed by the program, and by the collector; of late.
    disposed: usize,
    collected: usize,
    told: i64,
}

impl ExternalMemory {
    pub fn live(&self) -> usize {
        self.live
    }

    pub fn add(&mut self, bytes: usize) {
        self.live += bytes;
    }

    /// The program has freed something.
    pub fn dispose(&mut self, bytes: usize) {
        self.disposed += bytes;
        self.remove(bytes);
    }

    /// Something has been put in the place of something else.
    pub fn replace(&mut self, old: usize, new: usize) {
        self.add(new);
        self.remove(old);
    }

    /// The owners of something have been collected.
    pub fn collect(&mut self, bytes: usize) {
        self.collected += bytes;
        self.remove(bytes);
        self.reached = self.live;
    }

    fn remove(&mut self, bytes: usize) {
        self.live = self.live.saturating_sub(bytes);
        self.reached = self.reached.min(self.live);
        if self.disposed + self.collected > MEMORY {
            self.disposed /= 2;
            self.collected /= 2;
        }
    }

    /// Bytes by which memory may grow before V8 collects: as many as are in use, as V8 does with its own heap.
    fn room(&self) -> usize {
        let disposes = self.disposed > 0 && self.disposed / DISPOSED_TO_COLLECTED >= self.collected;
        if disposes { MOST_ROOM } else { self.reached.clamp(SOFT_LIMIT, MOST_ROOM) }
    }

    /// The change to tell V8 of, if it is worth it, which then counts as told.
    pub fn tell(&mut self) -> Option<i64> {
        let share = SOFT_LIMIT as f64 / self.room() as f64;
        let change = (self.live as f64 * share) as i64 - self.told;
        (change.abs() >= UNTOLD).then(|| {
            self.told += change;
            change
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: usize = 1 << 20;

    /// V8's part: its limit, and how often it has collected.
    #[derive(Default)]
    struct Collector {
        told: i64,
        lowest: i64,
        collections: usize,
    }

    impl Collector {
        /// Whether a collection starts.
        fn hear(&mut self, memory: &mut ExternalMemory) -> bool {
            self.told += memory.tell().unwrap_or(0);
            self.lowest = self.lowest.min(self.told);
            let starts = self.told > self.lowest + SOFT_LIMIT as i64;
            if starts {
                self.collections += 1;
                self.lowest = self.told;
            }
            starts
        }
    }

    #[test]
    fn a_program_that_disposes_of_what_it_makes_is_left_alone() {
        let (mut memory, mut v8) = (ExternalMemory::default(), Collector::default());
        for _ in 0..100 {
            for _ in 0..20 {
                memory.add(20 * MB);
                v8.hear(&mut memory);
            }
            for _ in 0..20 {
                memory.dispose(20 * MB);
                v8.hear(&mut memory);
            }
        }
        assert!(v8.collections <= 10, "{} collections", v8.collections);
        assert_eq!(memory.live(), 0);
    }

    #[test]
    fn garbage_never_grows_beyond_the_room() {
        for in_use in [0, 300 * MB, 2000 * MB] {
            // Bytes disposed of for each that is left to the collector.
            for disposed in [0, 3, 10] {
                let (mut memory, mut v8) = (ExternalMemory::default(), Collector::default());
                memory.add(in_use);
                v8.hear(&mut memory);
                let (mut garbage, mut most) = (0, 0);
                for _ in 0..5000 {
                    memory.add(8 * MB * (1 + disposed));
                    let starts = v8.hear(&mut memory);
                    memory.dispose(8 * MB * disposed);
                    garbage += 8 * MB;
                    // Before anything is collected, a program that disposes of something counts as one that does of all.
                    assert!(garbage <= MOST_ROOM + 256 * MB);
                    if v8.collections > 2 {
                        most = most.max(garbage);
                    }
                    if starts {
                        memory.collect(std::mem::take(&mut garbage));
                        v8.hear(&mut memory);
                    }
                }
                // Near the share that parts the two kinds of program, the room changes while garbage piles up.
                let room = if disposed > 8 { 2 * MOST_ROOM } else { in_use.clamp(SOFT_LIMIT, MOST_ROOM) };
                let most_expected =
                    room + 8 * MB * (1 + disposed) + 2 * UNTOLD as usize * (room / SOFT_LIMIT);
                assert!(most <= most_expected, "{} MB beside {} MB, {disposed}", most / MB, in_use / MB);
            }
        }
    }

    #[test]
    fn small_changes_are_not_told_until_they_add_up() {
        let mut memory = ExternalMemory::default();
        memory.add(MB - 1);
        assert_eq!(memory.tell(), None);
        memory.add(1);
        assert_eq!(memory.tell(), Some(MB as i64));
        assert_eq!(memory.tell(), None);
    }
}
