// SPDX-License-Identifier: Apache-2.0
#include "tests/model/machine.h"
#include "tests/shim/shim.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fmt/format.h>
#include <memory>
#include <ucontext.h>
#include <utility>

namespace thruway::model {
namespace {

constexpr size_t word_size = 4;
constexpr size_t max_shared = 256; ///< words that CPUs share
constexpr uint16_t no_word = 0xffff;
constexpr unsigned spin_reads = 3; ///< so many equal loads in a row are waiting for somebody

/// How much of each shared word's history is known: the index of its newest entry that must not be forgotten again.
using View = std::array<uint16_t, max_shared>;

void join(View &view, const View &other)
{
    for (size_t i = 0; i < max_shared; i++)
        view[i] = std::max(view[i], other[i]);
}

/// One entry of a word's history.
struct Store {
    uint32_t value;
    uint32_t time;
    uint32_t known; ///< what who reads this value gets to know: index into Machine::views_
};

struct Word {
    uint32_t *at = nullptr;
    uint16_t shared = no_word; ///< index of those that one CPU writes and another one touches
    uint8_t readers = 0;
    uint8_t writers = 0;
    bool ignored = false;
};

struct Choice {
    uint16_t taken;
    uint16_t options;
    bool surprising;
};

struct Cpu {
    ucontext_t context;
    std::vector<std::byte> stack = std::vector<std::byte>(256 * 1024);
    View now;       ///< no load may go behind this
    View acquired;  ///< what has been read, but no barrier has made binding yet
    uint32_t known; ///< as of the last barrier: what goes along with stores
    bool finished;
    bool stubborn;     ///< goes on waiting although nobody else moves
    const Word *waits; ///< for a change of this word
    const Word *spins; ///< word that the last loads read
    uint32_t spin_value;
    unsigned spin_count;
};

struct Step {
    size_t cpu;
    const void *code;
    const char *what;
    size_t word;
    uint64_t value;
};

enum class Access : uint8_t { load, store };

class Machine {
public:
    Machine(const std::vector<Region> &regions, const Script &script, const Bounds &bounds);
    Report run();

    void before(const void *at, size_t size, Access access, const void *code);
    template<typename T, typename F>
    T atomic(T *at, F change, bool full, const void *code);
    void barrier();
    void fail(const std::string &what);

private:
    bool explore_bound(std::chrono::steady_clock::time_point end);
    void execute();
    bool next_path();
    unsigned choose(size_t options, bool surprising);

    void enter(size_t cpu);
    static void entry();
    void finish();
    void switch_to(size_t cpu);
    void may_switch(const Word &word, Access access);
    void wait_for(const Word &word);
    void let_others(bool surprising);
    [[nodiscard]] std::vector<size_t> runnable() const;

    void settle();
    void record(Word &word, uint32_t known);
    void choose_values(size_t first, size_t last);
    [[nodiscard]] size_t word_of(const void *at) const;
    void touch(Word &word, Access access);
    uint32_t keep(const View &view);
    void full_barrier();
    void note(const void *code, const char *what, size_t word, uint64_t value);
    [[nodiscard]] std::string story() const;

    const std::vector<Region> &regions_;
    const Script &script_;
    Bounds bounds_;
    std::vector<Word> words_;
    std::vector<std::vector<std::byte>> snapshot_;
    size_t shared_count_ = 0;
    bool sharing_grew_ = false;

    std::vector<Choice> path_;
    size_t depth_ = 0;
    unsigned surprises_ = 0;
    unsigned bound_ = 0;
    bool cut_ = false; ///< the bound left executions out

    std::vector<std::unique_ptr<Cpu>> cpus_;
    ucontext_t home_{};
    size_t current_ = 0;
    uint32_t time_ = 0;
    std::array<std::vector<Store>, max_shared> history_;
    std::vector<View> views_;
    View barriers_{};                                      ///< what full barriers have made known to each other
    size_t pending_first_ = 0, pending_last_ = 0;          ///< words that a store is about to change
    std::vector<std::pair<uint32_t *, uint32_t>> restore_; ///< newest values, while a load sees an older one

    std::string violation_;
    bool telling_ = false;
    std::vector<Step> steps_;
    Report report_;
};

Machine *machine = nullptr; ///< the one whose script is running; hooks have no other way to it
bool running = false;       ///< inside of a CPU's program

Machine::Machine(const std::vector<Region> &regions, const Script &script, const Bounds &bounds)
    : regions_(regions), script_(script), bounds_(bounds)
{
    for (const Region &region : regions_)
        for (size_t offset = 0; offset < region.size; offset += word_size) {
            Word word;
            word.at = reinterpret_cast<uint32_t *>(static_cast<std::byte *>(region.base) + offset);
            word.ignored = region.ignored && region.ignored(offset);
            words_.push_back(word);
        }
    for (size_t i = 0; i < script_.threads.size(); i++)
        cpus_.push_back(std::make_unique<Cpu>());
}

Report Machine::run()
{
    const auto end = std::chrono::steady_clock::now() + bounds_.time_limit;
    machine = this;
    script_.prepare();
    for (const Region &region : regions_) {
        const auto *bytes = static_cast<const std::byte *>(region.base);
        snapshot_.emplace_back(bytes, bytes + region.size);
    }
    for (bound_ = 0; explore_bound(end); bound_++) {
        report_.surprises = bound_;
        report_.exhaustive = !cut_;
        if (!cut_ || (bound_ >= bounds_.surprises && std::chrono::steady_clock::now() > end))
            break;
    }
    if (!violation_.empty()) { // once more, to tell it
        telling_ = true;
        violation_.clear();
        execute();
        report_.violation = fmt::format("{}, with {} surprises\n{}", violation_, surprises_, story());
    }
    machine = nullptr;
    return report_;
}

/// Runs all executions within the bound; false if it came to a violation or the end of its time instead.
bool Machine::explore_bound(std::chrono::steady_clock::time_point end)
{
    path_.clear();
    cut_ = false;
    for (;;) {
        execute();
        report_.executions++;
        if (sharing_grew_) { // choices lie elsewhere now
            path_.clear();
            cut_ = sharing_grew_ = false;
            violation_.clear();
            continue;
        }
        if (!violation_.empty())
            return false;
        if (bound_ > bounds_.surprises && std::chrono::steady_clock::now() > end)
            return false;
        if (!next_path())
            return true;
    }
}

/// Takes the path's last choice that has an alternative; false if all have been taken.
bool Machine::next_path()
{
    while (!path_.empty() && path_.back().taken + 1 >= path_.back().options)
        path_.pop_back();
    if (path_.empty())
        return false;
    path_.back().taken++;
    return true;
}

unsigned Machine::choose(size_t options, bool surprising)
{
    if (options <= 1)
        return 0;
    if (depth_ == path_.size()) {
        if (surprising && surprises_ >= bound_) {
            cut_ = true;
            return 0;
        }
        path_.push_back({0, static_cast<uint16_t>(options), surprising});
    }
    const Choice &choice = path_[depth_++];
    if (choice.surprising && choice.taken > 0)
        surprises_++;
    return choice.taken;
}

void Machine::execute()
{
    for (size_t i = 0; i < regions_.size(); i++)
        std::memcpy(regions_[i].base, snapshot_[i].data(), snapshot_[i].size());
    depth_ = 0;
    surprises_ = 0;
    time_ = 0;
    views_.assign(1, View{});
    barriers_ = {};
    pending_first_ = pending_last_ = 0;
    for (const Word &word : words_)
        if (word.shared != no_word)
            history_[word.shared].assign(1, {*word.at, 0, 0});
    for (auto &cpu : cpus_) {
        cpu->now = cpu->acquired = {};
        cpu->known = 0;
        cpu->finished = cpu->stubborn = false;
        cpu->waits = cpu->spins = nullptr;
        cpu->spin_count = 0;
        getcontext(&cpu->context);
        cpu->context.uc_stack.ss_sp = cpu->stack.data();
        cpu->context.uc_stack.ss_size = cpu->stack.size();
        cpu->context.uc_link = nullptr;
        makecontext(&cpu->context, &Machine::entry, 0);
    }
    if (script_.begin)
        script_.begin();
    enter(choose(cpus_.size(), false));
    running = true;
    swapcontext(&home_, &cpus_[current_]->context);
    running = false;
    if (script_.finally)
        script_.finally();
}

void Machine::enter(size_t cpu)
{
    current_ = cpu;
    shim_cpu = static_cast<unsigned>(cpu);
    if (script_.enter) {
        const bool was_running = std::exchange(running, false);
        script_.enter(cpu);
        running = was_running;
    }
}

void Machine::entry()
{
    machine->script_.threads[machine->current_]();
    machine->finish();
}

void Machine::finish()
{
    settle();
    cpus_[current_]->finished = true;
    const auto others = runnable();
    if (others.empty())
        setcontext(&home_);
    enter(others[choose(others.size(), false)]);
    setcontext(&cpus_[current_]->context);
}

void Machine::switch_to(size_t cpu)
{
    const size_t from = current_;
    enter(cpu);
    swapcontext(&cpus_[from]->context, &cpus_[cpu]->context);
}

/// CPUs that can go on. If all that are left wait for each other, they do so stubbornly.
std::vector<size_t> Machine::runnable() const
{
    std::vector<size_t> able;
    for (size_t i = 0; i < cpus_.size(); i++)
        if (!cpus_[i]->finished && (!cpus_[i]->waits || cpus_[i]->stubborn))
            able.push_back(i);
    if (able.empty())
        for (size_t i = 0; i < cpus_.size(); i++)
            if (!cpus_[i]->finished) {
                cpus_[i]->stubborn = true;
                able.push_back(i);
            }
    return able;
}

void Machine::let_others(bool surprising)
{
    auto others = runnable();
    std::erase(others, current_);
    if (others.empty())
        return;
    if (!surprising) {
        switch_to(others[choose(others.size(), false)]);
        return;
    }
    if (const unsigned taken = choose(others.size() + 1, true); taken > 0)
        switch_to(others[taken - 1]);
}

void Machine::wait_for(const Word &word)
{
    Cpu &cpu = *cpus_[current_];
    if (runnable().size() == 1 || choose(2, true) == 1) {
        cpu.stubborn = true;
        return;
    }
    cpu.waits = &word;
    let_others(false);
    cpu.waits = nullptr;
}

void Machine::may_switch(const Word &word, Access access)
{
    Cpu &cpu = *cpus_[current_];
    const bool again = access == Access::load && cpu.spins == &word && cpu.spin_value == *word.at;
    cpu.spin_count = again ? cpu.spin_count + 1 : 0;
    cpu.spins = access == Access::load ? &word : nullptr;
    cpu.spin_value = *word.at;
    if (cpu.spin_count < spin_reads) {
        if (cpu.spin_count == 0)
            cpu.stubborn = false;
        let_others(true);
    } else if (!cpu.stubborn) {
        wait_for(word);
    }
}

size_t Machine::word_of(const void *at) const
{
    size_t first = 0;
    for (const Region &region : regions_) {
        const auto offset =
            static_cast<size_t>(static_cast<const std::byte *>(at) - static_cast<std::byte *>(region.base));
        if (offset < region.size)
            return first + offset / word_size;
        first += region.size / word_size;
    }
    return words_.size();
}

/// Learns which words CPUs share. A word that turns out to be shared changes where choices lie: the bound starts anew.
void Machine::touch(Word &word, Access access)
{
    auto &mask = access == Access::load ? word.readers : word.writers;
    mask = static_cast<uint8_t>(mask | 1U << current_);
    const auto all = static_cast<uint8_t>(word.readers | word.writers);
    const bool alone = (all & (all - 1)) == 0;
    if (word.shared == no_word && !word.ignored && word.writers != 0 && !alone) {
        if (shared_count_ == max_shared)
            std::abort();
        word.shared = static_cast<uint16_t>(shared_count_++);
        history_[word.shared].assign(1, {*word.at, 0, 0});
        sharing_grew_ = true;
    }
}

uint32_t Machine::keep(const View &view)
{
    views_.push_back(view);
    return static_cast<uint32_t>(views_.size() - 1);
}

/// Appends what the word holds now to its history.
void Machine::record(Word &word, uint32_t known)
{
    auto &history = history_[word.shared];
    history.push_back({*word.at, time_, known});
    cpus_[current_]->now[word.shared] = static_cast<uint16_t>(history.size() - 1);
    for (auto &cpu : cpus_)
        if (cpu->waits == &word)
            cpu->waits = nullptr;
}

/// Before anything else happens: what the last access did is done.
void Machine::settle()
{
    for (const auto &[at, value] : restore_)
        *at = value;
    restore_.clear();
    if (pending_first_ == pending_last_)
        return;
    time_++;
    for (size_t i = pending_first_; i < pending_last_; i++)
        if (words_[i].shared != no_word)
            record(words_[i], cpus_[current_]->known);
    pending_first_ = pending_last_ = 0;
    if (script_.after_store) {
        running = false;
        script_.after_store();
        running = true;
    }
}

/// Lets the load that follows see the words as they were at some time that this CPU has no reason to rule out.
void Machine::choose_values(size_t first, size_t last)
{
    Cpu &cpu = *cpus_[current_];
    std::vector<uint32_t> times;
    uint32_t earliest = 0;
    for (size_t i = first; i < last; i++)
        if (const auto shared = words_[i].shared; shared != no_word) {
            const auto &history = history_[shared];
            earliest = std::max(earliest, history[cpu.now[shared]].time);
            for (size_t at = history.size(); at-- > cpu.now[shared];)
                times.push_back(history[at].time);
        }
    std::erase_if(times, [&](uint32_t time) { return time < earliest; });
    std::ranges::sort(times, std::greater());
    times.erase(std::ranges::unique(times).begin(), times.end());
    const uint32_t time = bounds_.order == Order::weak ? times[choose(times.size(), true)] : times.front();
    for (size_t i = first; i < last; i++)
        if (const auto shared = words_[i].shared; shared != no_word) {
            const auto &history = history_[shared];
            size_t at = history.size() - 1;
            while (at > cpu.now[shared] && history[at].time > time)
                at--;
            if (at + 1 < history.size()) {
                restore_.emplace_back(words_[i].at, *words_[i].at);
                *words_[i].at = history[at].value;
            }
            cpu.now[shared] = static_cast<uint16_t>(at);
            cpu.acquired[shared] = std::max(cpu.acquired[shared], cpu.now[shared]);
            join(cpu.acquired, views_[history[at].known]);
        }
}

void Machine::before(const void *at, size_t size, Access access, const void *code)
{
    settle();
    const size_t first = word_of(at);
    if (first == words_.size())
        return;
    const size_t last = word_of(static_cast<const std::byte *>(at) + size - 1) + 1;
    const Word *shared = nullptr;
    for (size_t i = first; i < last; i++) {
        touch(words_[i], access);
        if (words_[i].shared != no_word)
            shared = &words_[i];
    }
    if (shared) {
        may_switch(*shared, access);
        settle();
        if (access == Access::load)
            choose_values(first, last);
    }
    note(code, access == Access::load ? "loads" : "stores", first, *words_[first].at);
    if (access == Access::store) {
        pending_first_ = first;
        pending_last_ = last;
    }
}

/// A barrier of its own. What was stored before it can be seen by others earlier than what they may then no longer
/// miss.
void Machine::barrier()
{
    settle();
    if (bounds_.order == Order::weak)
        let_others(true);
    full_barrier();
}

void Machine::full_barrier()
{
    Cpu &cpu = *cpus_[current_];
    join(cpu.now, cpu.acquired);
    join(cpu.now, barriers_);
    barriers_ = cpu.now;
    cpu.known = keep(cpu.now);
}

/// `change` gets the value and returns the new one, or the same for a compare-exchange that fails.
template<typename T, typename F>
T Machine::atomic(T *at, F change, bool full, const void *code)
{
    settle();
    const size_t first = word_of(at);
    const size_t count = sizeof(T) / word_size;
    for (size_t i = first; i < first + count && i < words_.size(); i++)
        touch(words_[i], Access::store);
    if (first == words_.size() || words_[first].shared == no_word) {
        const T before = *at;
        *at = change(before);
        return before;
    }
    may_switch(words_[first], *at == change(*at) ? Access::load : Access::store);
    settle();
    Cpu &cpu = *cpus_[current_];
    const T before = *at;
    const T after = change(before);
    for (size_t i = first; i < first + count; i++) {
        const auto &history = history_[words_[i].shared];
        cpu.now[words_[i].shared] = static_cast<uint16_t>(history.size() - 1);
        join(cpu.acquired, views_[history.back().known]);
    }
    note(code, full ? "compares and exchanges" : "adds to", first, before);
    if (before == after && full) // failed: no barrier
        return before;
    if (full)
        full_barrier();
    *at = after;
    time_++;
    for (size_t i = first; i < first + count; i++) {
        // Who reads this also gets to know what who wrote the value before it knew.
        View known = views_[cpu.known];
        join(known, views_[history_[words_[i].shared].back().known]);
        record(words_[i], keep(known));
    }
    if (full) {
        barriers_ = cpu.now;
        cpu.known = history_[words_[first].shared].back().known = keep(cpu.now);
    }
    note(code, "  leaving", first, after);
    if (script_.after_store) {
        running = false;
        script_.after_store();
        running = true;
    }
    return before;
}

void Machine::fail(const std::string &what)
{
    if (!violation_.empty())
        return;
    violation_ = what;
    note(nullptr, "VIOLATION", words_.size(), 0);
}

void Machine::note(const void *code, const char *what, size_t word, uint64_t value)
{
    if (telling_)
        steps_.push_back({current_, code, what, word, value});
}

std::string Machine::story() const
{
    std::string text;
    for (const Step &step : steps_) {
        size_t offset = step.word * word_size;
        std::string name;
        for (const Region &region : regions_) {
            if (offset < region.size) {
                name = region.name(offset);
                break;
            }
            offset -= region.size;
        }
        text += fmt::format("  cpu {} {} {} {:#x}  [{}]\n", step.cpu, step.what, name, step.value, step.code);
    }
    return text;
}

} // namespace

Report explore(const std::vector<Region> &regions, const Script &script, const Bounds &bounds)
{
    return Machine(regions, script, bounds).run();
}

void violation(const std::string &what)
{
    machine->fail(what);
}

namespace {

void hook(const void *at, size_t size, Access access, const void *code)
{
    if (running)
        machine->before(at, size, access, code);
}

/// A struct that is copied goes word by word, as the BPF compiler copies it.
void copy(void *to, const void *from, size_t size, const void *code)
{
    for (size_t done = 0; done < size; done += 8) {
        const size_t part = std::min<size_t>(8, size - done);
        std::array<std::byte, 8> bytes{};
        hook(static_cast<const std::byte *>(from) + done, part, Access::load, code);
        std::memcpy(bytes.data(), static_cast<const std::byte *>(from) + done, part);
        hook(static_cast<std::byte *>(to) + done, part, Access::store, code);
        std::memcpy(static_cast<std::byte *>(to) + done, bytes.data(), part);
    }
}

template<typename T, typename F>
T change(volatile T *at, F function, bool full, const void *code)
{
    T *const plain = const_cast<T *>(at);
    if (running)
        return machine->atomic(plain, function, full, code);
    const T before = *plain;
    *plain = function(before);
    return before;
}

} // namespace
} // namespace thruway::model

// What the instrumentation of -fsanitize=thread calls (llvm/lib/Transforms/Instrumentation/ThreadSanitizer.cpp).
// NOLINTBEGIN(readability-identifier-naming,bugprone-reserved-identifier,bugprone-macro-parentheses)
using namespace thruway::model;

#define HERE __builtin_return_address(0)
#define ACCESS(size)                                                                                                   \
    void __tsan_read##size(void *at)                                                                                   \
    {                                                                                                                  \
        hook(at, size, Access::load, HERE);                                                                            \
    }                                                                                                                  \
    void __tsan_write##size(void *at)                                                                                  \
    {                                                                                                                  \
        hook(at, size, Access::store, HERE);                                                                           \
    }                                                                                                                  \
    void __tsan_volatile_read##size(void *at)                                                                          \
    {                                                                                                                  \
        hook(at, size, Access::load, HERE);                                                                            \
    }                                                                                                                  \
    void __tsan_volatile_write##size(void *at)                                                                         \
    {                                                                                                                  \
        hook(at, size, Access::store, HERE);                                                                           \
    }
#define ATOMIC(bits, type)                                                                                             \
    type __tsan_atomic##bits##_fetch_add(volatile type *at, type value, int)                                           \
    {                                                                                                                  \
        return change(at, [&](type before) { return before + value; }, false, HERE);                                   \
    }                                                                                                                  \
    type __tsan_atomic##bits##_fetch_and(volatile type *at, type value, int)                                           \
    {                                                                                                                  \
        return change(at, [&](type before) { return before & value; }, false, HERE);                                   \
    }                                                                                                                  \
    type __tsan_atomic##bits##_fetch_or(volatile type *at, type value, int)                                            \
    {                                                                                                                  \
        return change(at, [&](type before) { return before | value; }, false, HERE);                                   \
    }                                                                                                                  \
    type __tsan_atomic##bits##_exchange(volatile type *at, type value, int)                                            \
    {                                                                                                                  \
        return change(at, [&](type) { return value; }, true, HERE);                                                    \
    }                                                                                                                  \
    type __tsan_atomic##bits##_compare_exchange_val(volatile type *at, type expected, type value, int, int)            \
    {                                                                                                                  \
        return change(at, [&](type before) { return before == expected ? value : before; }, true, HERE);               \
    }

extern "C" {
ACCESS(1)
ACCESS(2)
ACCESS(4)
ACCESS(8)
ATOMIC(32, uint32_t)
ATOMIC(64, uint64_t)

void __tsan_init()
{
}

void *__tsan_memcpy(void *to, const void *from, size_t size)
{
    copy(to, from, size, HERE);
    return to;
}

void *__tsan_memset(void *to, int value, size_t size)
{
    for (size_t done = 0; done < size; done += 8) {
        hook(static_cast<std::byte *>(to) + done, std::min<size_t>(8, size - done), Access::store, HERE);
        std::memset(static_cast<std::byte *>(to) + done, value, std::min<size_t>(8, size - done));
    }
    return to;
}

/// See table.c.
void model_full_barrier()
{
    if (running)
        machine->barrier();
}
}
// NOLINTEND(readability-identifier-naming,bugprone-reserved-identifier,bugprone-macro-parentheses)
