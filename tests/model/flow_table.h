// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tests/model/table.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace thruway::model {

/// A table that flows are to leave; without buckets there is none.
struct PreviousTable {
    uint32_t buckets = 0;
    bool spills = true; ///< one of layout version 1 has no spill area, and places its rows by another hash
};

/// A small flow table under test: what packets do to it, and what must hold. All that a row of flow N must say follows
/// from N (see table.h), so every packet that finds a row can tell whether the row is its flow's entirely.
class FlowTable {
public:
    /// The next hops of a flow are `ends` and `ends` + 1: one of these two, by turns.
    static constexpr uint32_t here = 10;
    static constexpr uint32_t there = 20;

    using Complain = std::function<void(const std::string &)>;

    /// The program that packets meet while the table changes its size: one that knows both tables, or one from before,
    /// whose only table is the previous one.
    enum class Program : uint8_t { both, before };

    /// The table is empty afterwards. `complain` is told what does not hold. With a previous table new flows are made
    /// in that until use_current().
    FlowTable(bool v6, uint32_t buckets, Complain complain, PreviousTable previous = {});

    [[nodiscard]] bool v6() const { return v6_; }
    /// Of the rows of both tables.
    [[nodiscard]] const std::vector<uint32_t> &places() const { return places_; }
    [[nodiscard]] size_t row_size() const { return v6_ ? sizeof(tw_flow6) : sizeof(tw_flow4); }
    [[nodiscard]] std::span<std::byte> memory(bool previous = false) const;
    [[nodiscard]] const tw_flow &row(uint32_t place) const;

    /// From now on packets meet this program.
    void load(Program program);
    void use_current() const { table_set_phase(TW_PHASE_CURRENT); }

    /// What packets do, at the time `now`.
    seen find(uint32_t number, uint16_t now, bool reply = false) const;
    /// As of a packet that opens no connection: it is to find its flow, or to hear that it should look again.
    void seek(uint32_t number, uint16_t now, bool reply = false) const;
    int create(uint32_t number, tw_flow_state state, uint16_t now) const;
    void open(uint32_t number, uint16_t now) const;
    void end(uint32_t number, uint16_t now, bool reply = false) const;
    void advance(uint32_t number, uint16_t now, uint8_t tcp_flags, bool reply = false) const;
    void repoint(uint32_t number, uint16_t now, uint32_t ends, bool reply = false) const;

    /// gc walks through the current table; through the previous one, whose flows it moves.
    void sweep(uint16_t now) const;
    void move(uint16_t now) const;

    /// The other half of the row stands and names it.
    [[nodiscard]] bool partner_stands(uint32_t place) const;
    [[nodiscard]] bool same_key(uint32_t a, uint32_t b) const;

    /// There is a row that a packet of this flow can find, now.
    [[nodiscard]] bool stands_somewhere(uint32_t number, bool reply) const;

    /// What must hold while nobody is at work: nothing claimed or locked, no key twice, each row with its other half.
    void check_at_rest() const;
    /// The flow, live and established, is there in both directions, which a packet each shows.
    void check_alive(uint32_t number, uint16_t now) const;

private:
    /// All buckets of a table, with those of its spill area.
    [[nodiscard]] uint32_t all_buckets(bool previous) const;

    bool v6_;
    uint32_t buckets_;
    PreviousTable previous_;
    std::vector<uint32_t> places_;
    std::array<std::byte *, 2> memory_; ///< of the current table and the previous one
    Program program_ = Program::both;
    Complain complain_;
};

inline uint32_t state_of(const tw_flow &row)
{
    return row.word & TW_FLOW_STATE;
}

inline bool stands(const tw_flow &row)
{
    return state_of(row) > TW_FLOW_CLAIMED;
}

} // namespace thruway::model
