// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>
#include <random>

namespace thruway {

/// How long to wait before the next try: twice as long with each one, spread so that the nodes of a cluster do not come
/// back all at once. Figures are client-go's (tools/cache/reflector.go).
class Backoff {
public:
    using Clock = std::chrono::steady_clock;
    using Duration = std::chrono::milliseconds;

    /// With the first wait and the longest one.
    explicit Backoff(Duration first, Duration longest = std::chrono::seconds(30))
        : first_(first), longest_(longest), next_(first)
    {
    }

    /// `random` spreads by a factor of 1 to 2.
    Duration after_failure(Clock::time_point now, std::minstd_rand &random)
    {
        if (now - last_ > healthy)
            next_ = first_;
        last_ = now;
        const double spread = std::uniform_real_distribution(1.0, 2.0)(random);
        const auto wait = std::chrono::duration_cast<Duration>(next_ * spread);
        next_ = std::min(next_ * 2, longest_);
        return std::min(wait, longest_);
    }

private:
    static constexpr Clock::duration healthy = std::chrono::minutes(2);

    Duration first_;
    Duration longest_;
    Duration next_;
    Clock::time_point last_;
};

} // namespace thruway
