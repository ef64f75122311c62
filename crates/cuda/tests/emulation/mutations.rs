//! Bugs planted in the kernels, one at a time, and whether the cases catch them.

pub struct Mutation {
    pub name: &'static str,
    pub file: &'static str,
    pub find: &'static str,
    /// Which occurrence of `find`, from 0.
    pub nth: usize,
    pub replace: &'static str,
    pub caught: bool,
}

pub const fn plant(
    name: &'static str,
    file: &'static str,
    find: &'static str,
    nth: usize,
    replace: &'static str,
) -> Mutation {
    Mutation { name, file, find, nth, replace, caught: true }
}

/// A bug that this execution model cannot show; see README.md.
const fn unseen(
    name: &'static str,
    file: &'static str,
    find: &'static str,
    nth: usize,
    replace: &'static str,
) -> Mutation {
    Mutation { name, file, find, nth, replace, caught: false }
}

const FORWARD: &str = "norm_forward.cuh";
const BACKWARD: &str = "norm_backward.cuh";
const TEAM: &str = "team.cuh";
const TILE: &str = "tile.cuh";
const LANES: &str = "lanes.cuh";
const MOMENTS: &str = "moments.cuh";
const NUMERIC: &str = "numeric.cuh";
const NEU_NORM: &str = "neu_norm.cuh";
const BARRIER: &str = "block_sync();";

pub const MUTATIONS: &[Mutation] = &[
    plant("forward: no barrier before the parts of a cell are merged", FORWARD, BARRIER, 0, ""),
    plant("forward: no barrier after a chunk is loaded", FORWARD, BARRIER, 1, ""),
    plant("forward: no barrier between merging and the coefficients", FORWARD, BARRIER, 3, ""),
    plant("forward: no barrier before a chunk is applied", FORWARD, BARRIER, 4, ""),
    plant("forward: no barrier between applying and the next chunk", FORWARD, BARRIER, 5, ""),
    plant("forward: no wait for the copies of the first sweep", FORWARD, "copy_wait();", 0, ""),
    plant("forward: no wait for the copies of the second sweep", FORWARD, "copy_wait();", 1, ""),
    plant("forward: every member moves the running statistics", FORWARD, "b.member == 0 &&", 0, "true &&"),
    plant(
        "forward: every block counts the batch",
        FORWARD,
        "!is_last_block(p.barriers, blocks, flag)",
        0,
        "blocks == 0 || flag == nullptr",
    ),
    plant(
        "forward: the batch is counted one block early",
        FORWARD,
        "blocks, flag)) return;",
        0,
        "blocks - (blocks > 1), flag)) return;",
    ),
    plant("forward: the second pass corrects no mean", MOMENTS, "- pivot) + from_base", 0, "- pivot)"),
    plant("forward: sums start at zero", NUMERIC, "== P(0) ? at : P(0);", 0, "== P(0) ? P(0) : P(0);"),
    plant("forward: one part of a cell is left out", FORWARD, "part < p.parts ?", 0, "part + 1 < p.parts ?"),
    plant(
        "forward: the copy of the bias is one of the weight",
        FORWARD,
        "p.bias_stride, step, channel, bias);",
        0,
        "p.bias_stride, step, channel, weight);",
    ),
    plant(
        "forward: the low part of the mean is dropped",
        FORWARD,
        "saved[plane] = found.mean.low;",
        0,
        "saved[plane] = 0;",
    ),
    plant(
        "forward: the last chunk is not reloaded when it is not the resident one",
        FORWARD,
        "chunk + 1 < chunks",
        0,
        "chunk + 2 < chunks",
    ),
    plant("backward: no barrier between loading and summing", BACKWARD, BARRIER, 0, ""),
    plant("backward: no barrier between summing and the results", BACKWARD, BARRIER, 1, ""),
    plant("backward: no barrier between merging and the coefficients", BACKWARD, BARRIER, 3, ""),
    plant("backward: no barrier before dx is computed", BACKWARD, BARRIER, 4, ""),
    plant("backward: no barrier between dx and the next chunk", BACKWARD, BARRIER, 5, ""),
    plant(
        "backward: one part of a cell is left out",
        BACKWARD,
        "part < p.parts ?",
        0,
        "part + 1 < p.parts ?",
    ),
    plant("backward: the base is taken for the mean", BACKWARD, "- sums.a * from_base", 0, ""),
    plant(
        "backward: the means stay under running statistics",
        BACKWARD,
        "if (!p.batch_statistics) return mean;",
        0,
        "",
    ),
    plant("backward: dbias takes the other sum", BACKWARD, "&Pair::a", 0, "&Pair::b"),
    plant(
        "backward: the time scale is left out of the parameter gradients",
        BACKWARD,
        "scale_of<P>(p, t) * (cell",
        0,
        "1.0 * (cell",
    ),
    plant("backward: dscale skips the channels past the first 32", BACKWARD, "c += 32", 0, "c += p.channels"),
    plant(
        "team: slots of neighbouring members overlap",
        TEAM,
        "(cell * p.team + member)",
        0,
        "(cell * p.team + member / 2)",
    ),
    unseen(
        "team: members are merged in an order that depends on the block",
        TILE,
        "first = b.lane() & (apart - 1);",
        0,
        "first = (b.lane() + b.member) & (apart - 1);",
    ),
    plant(
        "team: a member's values are counted one row short",
        TEAM,
        "first_row(p, member + 1)",
        0,
        "(first_row(p, member + 1) - 1)",
    ),
    plant("team: no cluster barrier before the peers are read", TEAM, "cluster_wait();", 0, ""),
    plant("team: no cluster barrier before a block's memory goes away", TEAM, "cluster_wait();", 1, "{}"),
    plant(
        "team: nobody waits at the cooperative barrier",
        TEAM,
        "while (((before",
        0,
        "while (false && ((before",
    ),
    plant(
        "team: the cooperative barrier is one arrival short",
        TEAM,
        "top - (team - 1)",
        0,
        "top - (team - 2)",
    ),
    plant(
        "team: the first block takes itself for the last",
        TEAM,
        "atomic_increment(ticket, blocks - 1) == blocks - 1",
        0,
        "atomic_increment(ticket, blocks - 1) == 0",
    ),
    plant(
        "team: one block too many draws a ticket",
        TEAM,
        "atomic_increment(ticket, blocks - 1) == blocks - 1",
        0,
        "atomic_increment(ticket, blocks) == blocks",
    ),
    plant("team: no barrier before a member's results are put into memory", TEAM, BARRIER, 2, ""),
    plant("team: no barrier after the ticket", TEAM, BARRIER, 5, ""),
    plant(
        "tile: the last tile has as many channels as the others",
        TILE,
        "smaller(p.tile_channels, p.channels - channel)",
        0,
        "p.tile_channels",
    ),
    plant(
        "tile: the last chunk has as many rows as the others",
        TILE,
        "smaller(p.chunk_rows, end - first)",
        0,
        "p.chunk_rows",
    ),
    plant(
        "lanes: the last piece of a row is as long as the others",
        LANES,
        "column * V < row_values(p, b.first + row)",
        0,
        "column < columns",
    ),
    plant("lanes: the walk forgets to carry into rows", LANES, "row += 1;", 0, ""),
    plant("lanes: the parts of a cell overlap", LANES, "start = part * 32 + b", 0, "start = part * 31 + b"),
    plant("lanes: the rows of parts overlap", LANES, "row = part * lane_rows +", 0, "row = part +"),
    plant("NeuNorm: no barrier between the lanes' sums and the total", NEU_NORM, BARRIER, 0, ""),
    plant("NeuNorm: no barrier between the total and its use", NEU_NORM, BARRIER, 1, ""),
    plant(
        "NeuNorm: pixels past the last are live",
        NEU_NORM,
        "live(holds && pixel < params.pixels)",
        0,
        "live(holds)",
    ),
    plant(
        "NeuNorm: channels past the kept ones are not summed",
        NEU_NORM,
        "c = s.lane + kKept * p.lanes; c < p.channels",
        0,
        "c = p.channels; c < p.channels",
    ),
    plant(
        "NeuNorm: the carried gradient decays once too often",
        NEU_NORM,
        "(t + 1 == p.steps ? 1.0 : p.k)",
        0,
        "p.k",
    ),
    plant("NeuNorm: the groups of samples are not all added up", NEU_NORM, "g < p.groups", 0, "g < 1"),
    unseen("team: no fence before the cooperative barrier's arrival", TEAM, "device_fence();", 0, ""),
];
