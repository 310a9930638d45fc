// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/known.h"

#include "agent/state/fingerprint.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace thruway {
namespace {

uint64_t hash_lines(const std::vector<std::string> &lines)
{
    uint64_t hash = 0;
    for (const std::string &line : lines)
        hash = hash_mix(hash, std::hash<std::string>{}(line));
    return hash;
}

} // namespace

void Known::upsert(Decoded decoded, Learned &learned)
{
    if (!decoded.key) {
        std::ranges::move(decoded.faults, std::back_inserter(learned.refused));
        return;
    }
    if (!decoded.object && decoded.faults.empty())
        return remove(*decoded.key, learned);

    Entry &entry = entries_[decoded.key->name];
    entry.round = round_;
    const uint64_t faults = hash_lines(decoded.faults);
    if (std::exchange(entry.faults, faults) != faults)
        std::ranges::move(decoded.faults, std::back_inserter(learned.refused));
    if (!decoded.object)
        return;
    const uint64_t fingerprint = fingerprint_of(*decoded.object);
    const bool same = entry.told && entry.fingerprint == fingerprint;
    entry.fingerprint = fingerprint;
    entry.told = true;
    if (!same)
        learned.changes.emplace_back(Upsert{std::move(*decoded.object)});
}

void Known::remove(const ObjectKey &key, Learned &learned)
{
    const auto found = entries_.find(key.name);
    if (found == entries_.end())
        return;
    if (found->second.told)
        learned.changes.emplace_back(Delete{key});
    entries_.erase(found);
}

void Known::end_list(Kind kind, Learned &learned)
{
    std::erase_if(entries_, [&](const auto &item) {
        const auto &[name, entry] = item;
        if (entry.round == round_)
            return false;
        if (entry.told)
            learned.changes.emplace_back(Delete{{kind, name}});
        return true;
    });
}

} // namespace thruway
