// The threads that can go on, and which of them does: the schedules. Kind 0 takes turns; 1 and 2 let the
// first or the last block, warp and thread run until it is stuck; 3 does so in a shuffled order of blocks
// and warps; 4 picks at random. A thread is its index in the grid.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <numeric>
#include <random>
#include <vector>

namespace spikenorm::emulation {

class Ready {
  public:
    Ready(unsigned schedule, std::size_t threads, std::mt19937& random)
        : schedule_(schedule), threads_(threads), random_(random) {
        if (has_ranks()) waiting_.resize(threads / 64 + 1);
        if (schedule == 3) {
            warps_.resize(threads / 32);
            std::iota(warps_.begin(), warps_.end(), std::size_t{0});
            std::shuffle(warps_.begin(), warps_.end(), random);
            ranks_.resize(warps_.size());
            for (std::size_t rank = 0; rank < warps_.size(); ++rank) ranks_[warps_[rank]] = rank;
        }
    }

    bool empty() const { return count_ == 0; }

    void add(std::size_t thread) {
        ++count_;
        if (!has_ranks()) return line_.push_back(thread);
        const std::size_t rank = schedule_ == 1   ? thread
                                 : schedule_ == 2 ? threads_ - 1 - thread
                                                  : ranks_[thread / 32] * 32 + thread % 32;
        waiting_[rank / 64] |= std::uint64_t{1} << rank % 64;
        first_ = std::min(first_, rank / 64);
    }

    std::size_t take() {
        --count_;
        if (!has_ranks()) return schedule_ == 0 ? from_the_front() : from_anywhere();
        while (waiting_[first_] == 0) ++first_;
        const std::size_t rank = first_ * 64 + static_cast<std::size_t>(__builtin_ctzll(waiting_[first_]));
        waiting_[first_] &= waiting_[first_] - 1;
        return schedule_ == 1 ? rank : schedule_ == 2 ? threads_ - 1 - rank : warps_[rank / 32] * 32 + rank % 32;
    }

  private:
    bool has_ranks() const { return schedule_ >= 1 && schedule_ <= 3; }

    std::size_t from_the_front() {
        const std::size_t thread = line_.front();
        line_.pop_front();
        return thread;
    }
    std::size_t from_anywhere() {
        std::swap(line_[random_() % line_.size()], line_.back());
        const std::size_t thread = line_.back();
        line_.pop_back();
        return thread;
    }

    const unsigned schedule_;
    const std::size_t threads_;
    std::mt19937& random_;
    std::size_t count_ = 0;
    std::deque<std::size_t> line_;         // kinds 0 and 4
    std::vector<std::uint64_t> waiting_;   // kinds 1 to 3: a bit per rank
    std::size_t first_ = 0;                // no word before this one has a bit
    std::vector<std::size_t> warps_, ranks_;  // kind 3: warps by rank and back
};

}  // namespace spikenorm::emulation
