//! How a pass of the batch norm family is laid over a GPU, as plain data.
//!
//! A **team** of `team` thread blocks owns a tile of `tile_channels` neighbouring channels over all time
//! steps and splits the **rows** between its members: a row is one sample's `tile_channels · S` values,
//! or, where a tile is one channel, one of `segments` pieces of them. A member holds `chunk_rows` rows
//! of all its steps in shared memory at a time. One chunk: memory is read once. Several: a second sweep,
//! in reverse. Where the members cannot run at the same time the pass takes several launches.
//!
//! `crates/cuda/kernels/tile.cuh` is the other reader of these numbers.

use std::ops::Range;

use super::cuda_cost::{self, Load};
use crate::{DType, Grid, Layout, Result, bail};

/// What a plan must fit. Read off the device by the launcher, made up by tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CudaDevice {
    pub multiprocessors: usize,
    /// Largest dynamic shared memory of a block, in bytes.
    pub shared_per_block: usize,
    pub shared_per_multiprocessor: usize,
    /// Shared memory the driver takes per block.
    pub shared_reserved: usize,
    /// Threads of a block: a multiple of 32, at most 512.
    pub threads: usize,
    /// Largest cluster of blocks, 1 where there are none.
    pub max_cluster: usize,
    pub cooperative: bool,
}

/// Threads of 64 registers that share a multiprocessor.
const MOST_THREADS: usize = 1024;
/// Threads of the smaller blocks that are considered beside the largest.
const FEWER_THREADS: usize = 256;
/// What memory is read in.
const LINE_BYTES: usize = 128;
/// Cells of a tile, (steps × channels): their sums are kept beside the tile.
const MOST_CELLS: usize = 2048;

impl CudaDevice {
    /// Blocks of `threads` threads and `shared` bytes that run on a multiprocessor at the same time.
    pub fn resident(&self, threads: usize, shared: usize) -> usize {
        (self.shared_per_multiprocessor / (shared + self.shared_reserved)).min(MOST_THREADS / threads)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CudaPass {
    /// Statistics of the input, then y.
    Forward,
    /// y from statistics already known.
    Apply,
    Backward,
}

impl CudaPass {
    /// Tensors held in shared memory.
    pub fn tensors(self) -> usize {
        if self == Self::Backward { 2 } else { 1 }
    }
}

/// How threads lie over a tile, with the number of values a thread takes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lanes {
    Space(usize),
    /// S = 1.
    Channel(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TeamSync {
    /// A team of one.
    Alone,
    /// A hardware cluster.
    Cluster,
    /// All blocks of the launch run at the same time and meet in global memory.
    Cooperative,
    /// Sums, then combination, then apply, in launches of their own.
    Launches,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CudaPlan {
    pub pass: CudaPass,
    /// Contiguous, whatever the layout was.
    pub grid: Grid,
    pub dtype: DType,
    pub threads: usize,
    pub lanes: Lanes,
    pub sync: TeamSync,
    /// K: members of a team.
    pub team: usize,
    /// Teams of a launch; team j takes tiles j, j + teams, …
    pub teams: usize,
    pub tiles: usize,
    pub tile_channels: usize,
    pub segment: usize,
    pub segments: usize,
    /// N·segments.
    pub rows: usize,
    pub chunk_rows: usize,
    /// Steps of a launch: all, except where even one row of all steps does not fit.
    pub steps: usize,
    /// Bytes from row to row in shared memory.
    pub pitch: usize,
    /// Bytes of one copy from memory to shared memory.
    pub copy_bytes: usize,
    /// Threads that copy a row together: a power of two, at most 32.
    pub copy_lanes: usize,
    /// Warps that share a cell.
    pub parts: usize,
    /// Lanes side by side over channels; the rest of a warp is over rows.
    pub lane_columns: usize,
    pub offsets: SharedOffsets,
}

/// Where things lie in a block's shared memory, in bytes. The first are the sums per cell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SharedOffsets {
    pub partial: usize,
    pub coefficients: usize,
    pub rows: usize,
    pub tile: usize,
    /// Bytes of one tensor's tile.
    pub tensor: usize,
    pub total: usize,
}

/// What is chosen; the rest of a plan follows from it.
#[derive(Clone, Copy)]
struct Choice {
    tile_channels: usize,
    segment: usize,
    team: usize,
    sync: TeamSync,
    threads: usize,
    /// Blocks meant to share a multiprocessor.
    resident: usize,
}

impl CudaPlan {
    /// The cheapest plan for `grid` by [`cuda_cost`], of those that read once where there are any: the best of them is a
    /// fortieth slower than the best of all (H200), and leaves the second-level cache to others. `alignment` is a power of two that divides the
    /// address of every tensor of the pass.
    pub fn new(
        pass: CudaPass,
        grid: Grid,
        layout: Layout,
        dtype: DType,
        alignment: usize,
        device: &CudaDevice,
    ) -> Result<Self> {
        let plans = Self::all(pass, grid, layout, dtype, alignment, device)?;
        let once = plans.iter().any(Self::reads_once);
        let considered = plans.into_iter().filter(|plan| !once || plan.reads_once());
        match considered.min_by(|a, b| a.cost(device).total_cmp(&b.cost(device))) {
            Some(plan) => Ok(plan),
            None => bail!(Shape, "input: a tile of {} time steps does not fit in a CUDA block", grid.t),
        }
    }

    /// Every plan that is considered: all give the same values, though not the same last bits.
    pub fn all(
        pass: CudaPass,
        grid: Grid,
        layout: Layout,
        dtype: DType,
        alignment: usize,
        device: &CudaDevice,
    ) -> Result<Vec<Self>> {
        let grid = layout.fold(grid);
        let largest = [grid.t, grid.n, grid.c, grid.s, grid.t * grid.c].into_iter().max().unwrap_or(0);
        if grid.is_empty() || largest >= 1 << 31 {
            bail!(Shape, "input: {} elements cannot be laid over a CUDA grid", grid.len());
        }
        let shape = Shape { pass, grid, dtype, alignment, device };
        let mut plans = Vec::new();
        for plan in shape.choices().into_iter().filter_map(|choice| shape.plan(choice)) {
            if !plans.contains(&plan) {
                plans.push(plan);
            }
        }
        Ok(plans)
    }

    /// Rows of team member `member`.
    pub fn member_rows(&self, member: usize) -> Range<usize> {
        let first = |member: usize| member * (self.rows / self.team) + member.min(self.rows % self.team);
        first(member)..first(member + 1)
    }

    /// Sample of a row, and its values of each channel.
    pub fn row_values(&self, row: usize) -> (usize, Range<usize>) {
        let start = row % self.segments * self.segment;
        (row / self.segments, start..(start + self.segment).min(self.grid.s))
    }

    /// First step and number of steps of each launch.
    pub fn launches(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        (0..self.grid.t).step_by(self.steps).map(|first| (first, self.steps.min(self.grid.t - first)))
    }

    /// Values that a thread adds up at most before its sum is put together with others.
    pub fn terms(&self) -> usize {
        match self.lanes {
            Lanes::Space(vector) => {
                vector * (self.chunk_rows * (self.segment / vector)).div_ceil(32 * self.parts)
            }
            Lanes::Channel(_) => self.chunk_rows.div_ceil(self.parts * (32 / self.lane_columns)),
        }
    }

    pub fn blocks(&self) -> usize {
        self.teams * self.team
    }

    /// Sweeps a member makes over its rows: more than one when they do not fit.
    pub fn chunks(&self) -> usize {
        self.rows.div_ceil(self.team).div_ceil(self.chunk_rows)
    }

    /// Whether each value is read from memory once.
    pub fn reads_once(&self) -> bool {
        self.pass == CudaPass::Apply || (self.chunks() == 1 && self.sync != TeamSync::Launches)
    }

    /// What [`cuda_cost`] ranks it by; lower is better.
    pub fn cost(&self, device: &CudaDevice) -> f64 {
        cuda_cost::of(&self.load(device), device)
    }

    fn load(&self, device: &CudaDevice) -> Load {
        let rows = self.rows.div_ceil(self.team);
        let slab = self.tile_channels * self.segment;
        Load {
            blocks: self.blocks(),
            resident: device.resident(self.threads, self.offsets.total),
            threads: self.threads,
            team: self.team,
            turns: self.tiles.div_ceil(self.teams) * self.grid.t.div_ceil(self.steps),
            values: rows * slab * self.steps,
            rows: rows * self.steps,
            cells: self.steps * self.tile_channels,
            parts: self.parts,
            value_bytes: self.dtype.size(),
            slab_bytes: slab * self.dtype.size(),
            chunks: self.chunks(),
            segmented: self.segments > 1,
            sync: self.sync,
            pass: self.pass,
        }
    }
}

/// One question to the planner.
struct Shape<'a> {
    pass: CudaPass,
    grid: Grid,
    dtype: DType,
    alignment: usize,
    device: &'a CudaDevice,
}

impl Shape<'_> {
    fn choices(&self) -> Vec<Choice> {
        let mut all = Vec::new();
        for (tile_channels, segment) in self.tiles() {
            let tiles = self.grid.c.div_ceil(tile_channels);
            let rows = self.grid.n * self.grid.s.div_ceil(segment);
            for (threads, resident) in self.blocks() {
                for (team, sync) in self.teams(tiles, rows, resident) {
                    all.push(Choice { tile_channels, segment, team, sync, threads, resident });
                }
            }
        }
        all
    }

    /// Channels per tile and length of a row's piece. Tiles whose slab is a whole number of 32-byte
    /// sectors, then ever wider ones.
    fn tiles(&self) -> Vec<(usize, usize)> {
        let Grid { c, s, .. } = self.grid;
        let size = self.dtype.size();
        let mut tiles = vec![(1, s)];
        let mut channels = (32 / gcd(32, s * size)).max(if s == 1 { 4 } else { 1 });
        while channels < c && channels * s * size <= 8 << 10 && channels <= MOST_CELLS {
            tiles.push((channels, s));
            channels *= 2;
        }
        tiles.push((c.min(channels).min(MOST_CELLS), s));
        // Long rows also in pieces, for more members than samples and for rows that do not fit.
        let mut bytes = 256;
        while bytes < s * size {
            tiles.push((1, bytes / size));
            bytes *= 8;
        }
        tiles
    }

    /// Threads of a block, and how many such blocks share a multiprocessor.
    fn blocks(&self) -> Vec<(usize, usize)> {
        let mut sizes = vec![self.device.threads, self.device.threads.min(FEWER_THREADS)];
        sizes.dedup();
        let blocks = sizes.into_iter().flat_map(|threads| {
            (0..)
                .map(|power| 1 << power)
                .take_while(move |resident| resident * threads <= MOST_THREADS)
                .map(move |resident| (threads, resident))
        });
        blocks.collect()
    }

    fn teams(&self, tiles: usize, rows: usize, resident: usize) -> Vec<(usize, TeamSync)> {
        let device = self.device;
        let fill = (resident * device.multiprocessors).div_ceil(tiles).clamp(1, rows);
        let launches = [(fill, TeamSync::Launches), ((4 * fill).min(rows), TeamSync::Launches)];
        if self.pass == CudaPass::Apply {
            return launches.to_vec();
        }
        let mut teams = launches.to_vec();
        teams.push((1, TeamSync::Alone));
        let clusters = [2, 4, 8].into_iter().filter(|&team| team <= device.max_cluster.min(rows));
        teams.extend(clusters.map(|team| (team, TeamSync::Cluster)));
        if device.cooperative {
            let most = (resident * device.multiprocessors).min(rows);
            let doubling = (1..).map(|power| 1 << power).take_while(|&team| team < most);
            let even = [1, 2, 3].map(|teams| device.multiprocessors / teams);
            let chosen = doubling.chain(even).chain([fill, most]).filter(|&team| team > 1 && team <= most);
            teams.extend(chosen.map(|team| (team, TeamSync::Cooperative)));
        }
        teams
    }

    /// The plan a choice leads to, if it fits.
    fn plan(&self, choice: Choice) -> Option<CudaPlan> {
        let Choice { tile_channels, segment, team, sync, threads, resident } = choice;
        let (grid, device) = (self.grid, self.device);
        let size = self.dtype.size();
        let segments = grid.s.div_ceil(segment);
        let rows = grid.n * segments;
        let tiles = grid.c.div_ceil(tile_channels);
        let lanes = self.lanes(segment);
        let lane_columns = match lanes {
            Lanes::Channel(vector) => tile_channels.div_ceil(vector).next_power_of_two().min(32),
            Lanes::Space(_) => 32,
        };
        let pitch = self.pitch(tile_channels * segment * size, lanes, lane_columns, segment);
        let budget = device
            .shared_per_block
            .min((device.shared_per_multiprocessor / resident).saturating_sub(device.shared_reserved));
        let most_rows = rows.div_ceil(team);
        // All steps at once, unless the launches of a pass may each take some.
        let steps = match sync {
            TeamSync::Launches => self.steps_that_fit(budget, pitch, tile_channels, threads),
            _ => grid.t,
        };
        if steps * tile_channels > MOST_CELLS || rows >= 1 << 31 {
            return None;
        }
        let items = match lanes {
            Lanes::Space(_) => steps * tile_channels,
            Lanes::Channel(vector) => steps * tile_channels.div_ceil(vector).div_ceil(lane_columns),
        };
        let parts = (threads / 32).div_ceil(items).max(1);
        let fixed = self.offsets(steps, tile_channels, parts, 0);
        let row_bytes = self.pass.tensors() * steps * pitch;
        let chunk_rows = (budget.checked_sub(fixed.total)? / row_bytes).min(most_rows);
        if chunk_rows == 0 {
            return None;
        }
        let offsets = self.offsets(steps, tile_channels, parts, steps * chunk_rows * pitch);
        let teams = match sync {
            TeamSync::Cooperative => {
                (device.multiprocessors * device.resident(threads, offsets.total) / team).min(tiles)
            }
            _ => tiles,
        };
        if teams == 0 || teams * team >= 1 << 31 {
            return None;
        }
        let copy_bytes = self.copy_bytes(tile_channels, tiles, segment, segments);
        let copy_lanes = copy_lanes((tile_channels * segment * size).div_ceil(copy_bytes), copy_bytes);
        Some(CudaPlan {
            pass: self.pass,
            grid,
            dtype: self.dtype,
            threads,
            lanes,
            sync,
            team,
            teams,
            tiles,
            tile_channels,
            segment,
            segments,
            rows,
            chunk_rows,
            steps,
            pitch,
            copy_bytes,
            copy_lanes,
            parts,
            lane_columns,
            offsets,
        })
    }

    /// Steps a launch can take with at least one row of each in shared memory.
    fn steps_that_fit(&self, budget: usize, pitch: usize, tile_channels: usize, threads: usize) -> usize {
        let mut steps = (MOST_CELLS / tile_channels).clamp(1, self.grid.t);
        let parts = |steps: usize| (threads / 32).div_ceil(steps);
        while steps > 1 && self.offsets(steps, tile_channels, parts(steps), steps * pitch).total > budget {
            steps = steps.div_ceil(2);
        }
        steps
    }

    fn lanes(&self, segment: usize) -> Lanes {
        let wide = 16 / self.dtype.size();
        if self.grid.s == 1 {
            return Lanes::Channel(if self.dtype == DType::F64 { 1 } else { 2 });
        }
        let divides = |vector: &usize| {
            segment.is_multiple_of(*vector)
                && self.grid.s.is_multiple_of(*vector)
                && self.alignment.is_multiple_of(*vector * self.dtype.size())
        };
        Lanes::Space([wide, wide.min(4)].into_iter().find(divides).unwrap_or(1))
    }

    /// Rows a warp reads side by side should lie in different banks: their distance, modulo the 128
    /// bytes of all banks, is what the warp reads of each.
    fn pitch(&self, slab: usize, lanes: Lanes, lane_columns: usize, segment: usize) -> usize {
        let size = self.dtype.size();
        let read = match lanes {
            Lanes::Space(_) => segment * size,
            Lanes::Channel(vector) => lane_columns * vector * size,
        };
        let slab = slab.next_multiple_of(16);
        let read = read.next_multiple_of(16);
        if read >= 128 { slab } else { slab + (read + 128 - slab % 128) % 128 }
    }

    fn offsets(&self, steps: usize, tile_channels: usize, parts: usize, tensor: usize) -> SharedOffsets {
        let parameter = self.dtype.parameter().size();
        let cells = steps * tile_channels;
        let (part, coefficients_per_cell, row_state) = match self.pass {
            CudaPass::Backward => (16, 7 * parameter, 0),
            _ => (24, 4 * parameter, tile_channels * parameter),
        };
        let partial = 16 * cells;
        let coefficients = partial + part * cells * parts;
        let rows = (coefficients + coefficients_per_cell * cells).next_multiple_of(16);
        let tile = (rows + row_state).next_multiple_of(128);
        let tensor = tensor.next_multiple_of(16);
        SharedOffsets {
            partial,
            coefficients,
            rows,
            tile,
            tensor,
            total: tile + self.pass.tensors() * tensor,
        }
    }

    fn copy_bytes(&self, tile_channels: usize, tiles: usize, segment: usize, segments: usize) -> usize {
        let size = self.dtype.size();
        let channel = self.grid.s * size;
        let divides = |bytes: &usize| {
            let tile = tiles == 1 || (tile_channels * channel).is_multiple_of(*bytes);
            let piece =
                segments == 1 || ((segment * size).is_multiple_of(*bytes) && channel.is_multiple_of(*bytes));
            (self.grid.c * channel).is_multiple_of(*bytes)
                && self.alignment.is_multiple_of(*bytes)
                && tile
                && piece
        };
        [16, 8, 4, 2].into_iter().filter(|&bytes| bytes >= size).find(divides).unwrap_or(size)
    }
}

/// Lanes that copy rows of `columns` times `bytes` together: of those that read whole lines, the ones of which fewest are
/// idle in their last turn.
fn copy_lanes(columns: usize, bytes: usize) -> usize {
    let widest = columns.next_power_of_two().min(32);
    let narrowest = (LINE_BYTES / bytes).min(widest);
    let turns = |lanes: usize| columns.div_ceil(lanes) * lanes;
    let choices = (0..=5).rev().map(|power| 1 << power).filter(|lanes| (narrowest..=widest).contains(lanes));
    choices.min_by_key(|&lanes| turns(lanes)).unwrap_or(widest)
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
