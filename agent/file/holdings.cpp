// SPDX-License-Identifier: Apache-2.0
#include "agent/file/holdings.h"

#include "agent/state/fingerprint.h"

#include <algorithm>
#include <fmt/format.h>
#include <iterator>
#include <unordered_set>
#include <utility>

namespace thruway {
namespace {

/// What is in `before` and not in `after`; both are sorted.
std::vector<ObjectKey> difference(const std::vector<ObjectKey> &before, const std::vector<ObjectKey> &after)
{
    std::vector<ObjectKey> keys;
    std::ranges::set_difference(before, after, std::back_inserter(keys));
    return keys;
}

} // namespace

std::set<std::string> Holdings::heirs(const Readings &readings) const
{
    std::set<std::string> heirs;
    for (const auto &[name, reading] : readings) {
        const auto file = files_.find(name);
        if (file == files_.end())
            continue;
        for (const ObjectKey &key : difference(file->second.objects, objects_after(file->second, reading))) {
            if (!counts(key, name))
                continue;
            const auto [first, last] = waiting_.equal_range(key);
            for (auto heir = first; heir != last; heir++) {
                if (!readings.contains(heir->second))
                    heirs.insert(heir->second);
            }
        }
    }
    return heirs;
}

Holdings::Upshot Holdings::apply(Readings readings, const Unsettled &unsettled)
{
    Upshot upshot;
    std::vector<ObjectKey> passed_on;

    // First what is given up, then what is taken, so that an object may move from any file to any other.
    for (const auto &[name, reading] : readings) {
        File &file = files_[name];
        auto objects = objects_after(file, reading);
        for (ObjectKey &key : difference(file.objects, objects)) {
            if (counts(key, name)) {
                holdings_.at(key).file.clear();
                passed_on.push_back(std::move(key));
            } else {
                stop_waiting(key, name);
            }
        }
        file.objects = std::move(objects);
    }
    for (auto &[name, reading] : readings) {
        if (reading.state == Reading::State::gone)
            files_.erase(name);
        else
            take_in(name, std::move(reading), unsettled, upshot);
    }
    for (ObjectKey &key : passed_on) {
        if (const auto found = holdings_.find(key); found->second.file.empty()) {
            holdings_.erase(found);
            upshot.changes.emplace_back(Delete{std::move(key)});
        }
    }
    return upshot;
}

std::vector<std::string> Holdings::files() const
{
    std::vector<std::string> names;
    names.reserve(files_.size());
    for (const auto &[name, file] : files_)
        names.push_back(name);
    return names;
}

uint64_t Holdings::stamp(const std::string &file) const
{
    const auto found = files_.find(file);
    return found == files_.end() ? 0 : found->second.stamp;
}

/// What a file holds after a reading: what is good in it, and what was good before and is now bad, or cannot be seen.
std::vector<ObjectKey> Holdings::objects_after(const File &file, const Reading &reading)
{
    if (reading.state == Reading::State::gone)
        return {};
    if (reading.state == Reading::State::broken)
        return file.objects;

    std::vector<ObjectKey> keys;
    if (!reading.complete)
        keys = file.objects;
    for (const Decoded &decoded : reading.objects) {
        if (!decoded.key)
            continue;
        const bool refused = !decoded.object && !decoded.faults.empty();
        if (decoded.object || (refused && std::ranges::binary_search(file.objects, *decoded.key)))
            keys.push_back(*decoded.key);
    }
    std::ranges::sort(keys);
    const auto repeated = std::ranges::unique(keys);
    keys.erase(repeated.begin(), repeated.end());
    keys.shrink_to_fit();
    return keys;
}

bool Holdings::counts(const ObjectKey &key, const std::string &name) const
{
    const auto found = holdings_.find(key);
    return found != holdings_.end() && found->second.file == name;
}

void Holdings::take_in(const std::string &name, Reading reading, const Unsettled &unsettled, Upshot &upshot)
{
    File &file = files_.at(name);
    file.stamp = reading.stamp;
    const bool was_broken = std::exchange(file.broken, reading.state == Reading::State::broken);
    if (file.broken) {
        if (!was_broken)
            upshot.refused.push_back(fmt::format("{}: {}", name, reading.error));
        return;
    }
    if (was_broken)
        upshot.mended.push_back(name);

    std::set<uint64_t> told;
    for (const std::string &line : take_objects(name, std::move(reading.objects), unsettled, upshot)) {
        const uint64_t hash = std::hash<std::string>{}(line);
        if (told.insert(hash).second && !std::ranges::binary_search(file.told, hash))
            upshot.refused.push_back(fmt::format("{}: {}", name, line));
    }
    file.told.assign(told.begin(), told.end());
}

std::vector<std::string> Holdings::take_objects(const std::string &name, std::vector<Decoded> objects,
                                                const Unsettled &unsettled, Upshot &upshot)
{
    std::vector<std::string> refusals;
    std::unordered_set<ObjectKey> seen;
    for (Decoded &decoded : objects) {
        std::ranges::move(decoded.faults, std::back_inserter(refusals));
        if (!decoded.object)
            continue;
        const ObjectKey key = key_of(*decoded.object);
        if (!seen.insert(key).second) {
            refusals.push_back(fmt::format("{}: twice in this file, and the first one counts", key.text()));
            continue;
        }
        const auto holding = holdings_.find(key);
        if (holding == holdings_.end() || holding->second.file.empty() || holding->second.file == name) {
            claim(key, std::move(*decoded.object), name, upshot);
            continue;
        }
        const std::string &other = holding->second.file;
        wait(key, name);
        if (unsettled(other))
            upshot.retry.push_back(name);
        else
            refusals.push_back(fmt::format("{}: {} has it too, had it first, and counts", key.text(), other));
    }
    return refusals;
}

void Holdings::claim(const ObjectKey &key, Object object, const std::string &name, Upshot &upshot)
{
    stop_waiting(key, name);
    const uint64_t fingerprint = fingerprint_of(object);
    const auto [holding, is_new] = holdings_.try_emplace(key);
    if (is_new || holding->second.fingerprint != fingerprint)
        upshot.changes.emplace_back(Upsert{std::move(object)});
    holding->second = {.fingerprint = fingerprint, .file = name};
}

void Holdings::wait(const ObjectKey &key, const std::string &name)
{
    stop_waiting(key, name);
    waiting_.emplace(key, name);
}

void Holdings::stop_waiting(const ObjectKey &key, const std::string &name)
{
    const auto [first, last] = waiting_.equal_range(key);
    const auto found = std::find_if(first, last, [&](const auto &entry) { return entry.second == name; });
    if (found != last)
        waiting_.erase(found);
}

} // namespace thruway
