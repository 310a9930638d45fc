// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tests/model/table.h"

#include <cstdint>
#include <functional>
#include <string>

namespace thruway::model {

/// A small flow table under test: what packets do to it, and what must hold. All that a row of flow N must say follows
/// from N (see table.h), so every packet that finds a row can tell whether the row is its flow's entirely.
class FlowTable {
public:
    /// The next hops of a flow are `ends` and `ends` + 1: one of these two, by turns.
    static constexpr uint32_t here = 10;
    static constexpr uint32_t there = 20;

    using Complain = std::function<void(const std::string &)>;

    /// The table is empty afterwards. `complain` is told what does not hold.
    FlowTable(bool v6, uint32_t buckets, Complain complain);

    [[nodiscard]] bool v6() const { return v6_; }
    [[nodiscard]] uint32_t places() const { return places_; }
    [[nodiscard]] size_t row_size() const { return v6_ ? sizeof(tw_flow6) : sizeof(tw_flow4); }
    [[nodiscard]] size_t size() const { return places_ * row_size(); }
    [[nodiscard]] const tw_flow &row(uint32_t place) const { return *table_row(place, v6_); }

    /// What packets do, at the time `now`.
    seen find(uint32_t number, uint16_t now, bool reply = false) const;
    int create(uint32_t number, tw_flow_state state, uint16_t now) const;
    void open(uint32_t number, uint16_t now) const;
    void end(uint32_t number, uint16_t now, bool reply = false) const;
    void advance(uint32_t number, uint16_t now, uint8_t tcp_flags, bool reply = false) const;
    void repoint(uint32_t number, uint16_t now, uint32_t ends, bool reply = false) const;

    /// The other half of the row stands and names it.
    [[nodiscard]] bool partner_stands(uint32_t place) const;
    [[nodiscard]] bool same_key(uint32_t a, uint32_t b) const;

    /// What must hold while nobody is at work: nothing claimed or locked, no key twice, each row with its other half.
    void check_at_rest() const;
    /// The flow, live and established, is there in both directions, which a packet each shows.
    void check_alive(uint32_t number, uint16_t now) const;

private:
    bool v6_;
    uint32_t places_;
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
