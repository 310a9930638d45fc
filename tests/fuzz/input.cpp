// SPDX-License-Identifier: Apache-2.0
#include "tests/fuzz/input.h"

#include <algorithm>

namespace thruway::fuzz {
namespace {

constexpr size_t head = 6;
constexpr size_t steps_max = 12;
constexpr size_t shortest = 14; ///< the kernel gives programs whole Ethernet headers

} // namespace

std::vector<Step> steps_of(std::span<const uint8_t> input)
{
    std::vector<Step> steps;
    while (input.size() >= head && steps.size() < steps_max) {
        Step step{};
        step.hook = static_cast<program>(input[0] % PROGRAMS);
        step.port = input[1] % pods.size();
        const size_t length = input[2] | (input[3] & 7U) << 8;
        step.linear = input[4] | static_cast<unsigned>(input[5]) << 8;
        input = input.subspan(head);
        step.bytes = input.first(std::min(length, input.size()));
        input = input.subspan(step.bytes.size());
        if (step.bytes.size() >= shortest)
            steps.push_back(step);
    }
    return steps;
}

void append_step(std::vector<uint8_t> &input, program hook, unsigned port, const std::vector<uint8_t> &bytes)
{
    input.insert(input.end(),
                 {static_cast<uint8_t>(hook), static_cast<uint8_t>(port), static_cast<uint8_t>(bytes.size()),
                  static_cast<uint8_t>(bytes.size() >> 8), 0xff, 0xff});
    input.insert(input.end(), bytes.begin(), bytes.end());
}

} // namespace thruway::fuzz
