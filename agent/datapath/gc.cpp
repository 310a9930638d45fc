// SPDX-License-Identifier: Apache-2.0
#include "agent/datapath/gc.h"

#include "agent/datapath/flows.h"

#include <algorithm>
#include <bpf/bpf.h>

namespace thruway {
namespace {

/// Buckets in one slice: below a millisecond, whatever the size of the table.
constexpr uint32_t slice = 8192;

} // namespace

void Gc::begin()
{
    counted_ = 0;
    for (purges_ = 0; purges_ < arrays_->purges.size() && !wanted_.empty(); wanted_.pop_front())
        arrays_->purges[purges_++] = wanted_.front();
}

uint32_t Gc::buckets() const
{
    switch (table_) {
    case 0:
        return arrays_->flows4.size();
    case 1:
        return arrays_->flows6.size();
    case 2:
        return arrays_->previous ? arrays_->previous->v4.size() : 0;
    default:
        return arrays_->previous ? arrays_->previous->v6.size() : 0;
    }
}

Result<bool> Gc::step(bool moves)
{
    if (table_ == 0 && bucket_ == 0)
        begin();
    const bool previous = table_ >= 2;
    tw_gc asked{};
    asked.table = previous ? TW_FLOW_PREVIOUS : 0;
    asked.v6 = table_ % 2;
    asked.first = bucket_;
    asked.count = std::min(slice, buckets() - std::min(bucket_, buckets()));
    asked.purges = purges_;
    asked.moves = previous && moves;
    asked.now = flow_clock();
    if (asked.count > 0) {
        bpf_test_run_opts options{};
        options.sz = sizeof(options);
        options.ctx_in = &asked;
        options.ctx_size_in = sizeof(asked);
        if (const int error = bpf_prog_test_run_opts(datapath_->gc(), &options); error != 0)
            return fail_code(-error, "gc: cannot walk the flow table");
    }
    if (previous)
        counted_ += asked.rows;
    bucket_ += asked.count;
    if (bucket_ < buckets())
        return false;
    bucket_ = 0;
    if (table_++ < (arrays_->previous ? 3 : 1))
        return false;
    table_ = 0;
    left_ = counted_;
    purges_ = 0;
    return true;
}

} // namespace thruway
