// SPDX-License-Identifier: Apache-2.0
#include "agent/base/symbol.h"

#include <deque>
#include <mutex>
#include <unordered_map>

namespace thruway {
namespace {

struct Table {
    std::mutex mutex;
    std::deque<std::string> texts{""}; // a deque, because its strings never move
    std::unordered_map<std::string_view, uint32_t> ids{{"", 0}};
};

Table &table()
{
    static Table instance;
    return instance;
}

} // namespace

Symbol::Symbol(std::string_view text)
{
    Table &symbols = table();
    const std::lock_guard guard(symbols.mutex);
    if (auto found = symbols.ids.find(text); found != symbols.ids.end()) {
        id_ = found->second;
        return;
    }
    id_ = static_cast<uint32_t>(symbols.texts.size());
    symbols.ids.emplace(symbols.texts.emplace_back(text), id_);
}

std::string_view Symbol::text() const
{
    Table &symbols = table();
    const std::lock_guard guard(symbols.mutex);
    return symbols.texts[id_];
}

} // namespace thruway
