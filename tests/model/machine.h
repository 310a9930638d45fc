// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

/// A machine with a few CPUs that runs small programs in every order that it can be brought to think of.
///
/// The code under test is compiled with the instrumentation that -fsanitize=thread adds, but linked with machine.cpp in
/// place of tsan's runtime. So each access to memory, plain ones as well, first asks the machine, and nothing of the
/// code has to be written for the test. Before an access to a word that another CPU changes the machine may let another
/// CPU go on; under Order::weak a load may also return what the word held before.
///
/// An execution is a list of choices, most of them "go on" and "the newest value"; any other choice is a surprise. All
/// executions with no surprise are run, then all with at most one, and so on: a fault shows in the fewest
/// surprises that it needs, and what has been shown for a bound holds for all executions within it.
namespace thruway::model {

/// What the CPUs do to the order of memory accesses.
///
/// weak: as in the operational form of release and acquire (Kang et al., "A promising semantics for relaxed-memory
/// concurrency", POPL 2017, without promises). Each word has a history; a CPU may read any entry of it that is not
/// older than one it knows of. Compare-exchange, and every atomic whose result is used, is a full barrier (Linux,
/// Documentation/bpf/standardization and arch/arm64/net/bpf_jit_comp.c); an atomic whose result is not used orders
/// nothing. Not covered: loads that are satisfied by stores which come later in the program (load buffering), and that
/// arm64 keeps address dependencies, so that the code must not count on them.
enum class Order : uint8_t { sequential, weak };

struct Script {
    std::function<void()> prepare;              ///< fills the memory, alone; once
    std::function<void()> begin;                ///< before each execution
    std::vector<std::function<void()>> threads; ///< one for each CPU
    std::function<void(size_t)> enter;          ///< whenever a CPU goes on: brings what is its own
    std::function<void()> after_store;          ///< what must hold after each store to watched memory
    std::function<void()> finally;              ///< what must hold at the end
};

struct Bounds {
    Order order;
    unsigned surprises;                   ///< explored in any case
    std::chrono::milliseconds time_limit; ///< beyond that, higher bounds while this lasts
};

struct Report {
    std::string violation; ///< empty: none found; else what and in which execution
    uint64_t executions = 0;
    unsigned surprises = 0;  ///< the highest bound explored to its end
    bool exhaustive = false; ///< there are no executions with more surprises
};

/// Memory whose accesses are of interest; `name` says what lies at an offset. Lost updates of what `ignored` says are
/// by design, and such words are no reason to switch.
struct Region {
    void *base;
    size_t size;
    std::function<std::string(size_t)> name;
    std::function<bool(size_t)> ignored;
};

Report explore(const std::vector<Region> &regions, const Script &script, const Bounds &bounds);

/// To be called by what a Script runs: something that must hold does not.
void violation(const std::string &what);

} // namespace thruway::model
