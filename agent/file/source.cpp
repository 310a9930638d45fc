// SPDX-License-Identifier: Apache-2.0
#include "agent/file/source.h"

#include "agent/file/manifest.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <spdlog/spdlog.h>
#include <string_view>
#include <utility>

namespace thruway {
namespace {

using namespace std::chrono_literals;

/// Some ways in which the path comes to lead elsewhere cannot be followed by inotify (a link higher up, a mount), so
/// that it is looked at now and then.
constexpr auto check_interval = 500ms;

/// A file that was deleted may be about to be written anew, and one that is written to about to be closed: they are
/// looked at when nothing has happened to any of them for `settle_time`, or after `settle_limit` at last.
constexpr auto settle_time = 10ms;
constexpr auto settle_limit = 1s;

/// YAML that stops within a line may be a whole document, and mean something else than the whole line would.
bool is_cut_off(std::string_view name, std::string_view text)
{
    return !name.ends_with(".json") && !text.empty() && !text.ends_with('\n');
}

Reading read_file(const Folder &folder, Decoder &decoder, const std::string &name, bool complete)
{
    auto file = folder.read(name);
    if (!file && file.error().code() == ENOENT)
        return {.state = Reading::State::gone};
    if (!file)
        return {.state = Reading::State::broken, .error = file.error().text()};

    auto &[text, stamp] = *file;
    if (!complete)
        stamp = 0; // so that it is read again in any case
    if (!complete && is_cut_off(name, text))
        return {.state = Reading::State::broken, .error = "half written: ends within a line"};
    auto objects = read_manifest(decoder, name, std::move(text));
    if (!objects)
        return {.state = Reading::State::broken, .error = objects.error().text(), .stamp = stamp};
    return {.state = Reading::State::good, .objects = std::move(*objects), .complete = complete, .stamp = stamp};
}

} // namespace

FileSource::FileSource(Loop &loop, std::string folder, SourceEvents events)
    : loop_(loop), events_(std::move(events)), folder_(std::move(folder))
{
}

FileSource::~FileSource()
{
    loop_.cancel(settle_timer_);
    loop_.cancel(check_timer_);
    loop_.forget(folder_.fd());
}

Result<> FileSource::start()
{
    if (auto started = folder_.start(); !started)
        return started;
    if (auto watched = loop_.watch(folder_.fd(), [this] { on_events(); }); !watched)
        return watched;
    check_timer_ = loop_.after(0ms, [this] { check_folder(); });
    return {};
}

void FileSource::check_folder()
{
    if (find_folder()) {
        look_at(std::exchange(due_, {}));
        if (!std::exchange(synced_, true))
            events_.synced();
    }
    check_timer_ = loop_.after(check_interval, [this] { check_folder(); });
}

void FileSource::on_events()
{
    const Folder::Events events = folder_.take_events();
    for (const auto &[name, event] : events.files)
        note(name, event);
    if (!find_folder())
        return;
    if (events.lost) {
        if (auto noted = note_all(); !noted)
            return lose_folder(noted.error());
    }
    look_at(std::exchange(due_, {}));
    if (std::ranges::any_of(events.files, [&](const auto &file) { return settling_.contains(file.first); }))
        wait_for_settling();
}

void FileSource::on_settled()
{
    settle_timer_ = 0;
    const Files settled = std::exchange(settling_, {});
    if (!find_folder())
        return;
    for (const auto &[name, event] : settled) {
        if (!settling_.contains(name))
            due_.try_emplace(name, event);
    }
    look_at(std::exchange(due_, {}));
}

/// False if the folder is not there. If it is there anew, all of it has to be looked at.
bool FileSource::find_folder()
{
    const auto other = folder_.follow();
    if (!other) {
        lose_folder(other.error());
        return false;
    }
    if (*other) {
        if (auto noted = note_all(); !noted) {
            lose_folder(noted.error());
            return false;
        }
    }
    if (std::exchange(missing_, false))
        spdlog::info("folder {} is there", folder_.path());
    return true;
}

/// Forgets what seems to have happened to the files of late: that was the folder's going.
void FileSource::lose_folder(const Error &error)
{
    folder_.unfollow();
    due_.clear();
    settling_.clear();
    if (!std::exchange(missing_, true))
        events_.refused(error.text());
}

/// Finds out by their stamps which files have changed.
Result<> FileSource::note_all()
{
    auto names = folder_.list();
    if (!names)
        return std::unexpected(names.error());
    for (const std::string &name : *names) {
        const uint64_t stamp = folder_.stamp(name);
        if (stamp == 0 || stamp != holdings_.stamp(name))
            note(name, Folder::Event::written);
    }
    std::ranges::sort(*names);
    for (const std::string &name : holdings_.files()) {
        if (!std::ranges::binary_search(*names, name))
            note(name, Folder::Event::altered);
    }
    wait_for_settling();
    return {};
}

void FileSource::note(const std::string &name, Folder::Event event)
{
    const bool settled = event == Folder::Event::written;
    (settled ? due_ : settling_)[name] = event;
    (settled ? settling_ : due_).erase(name);
}

void FileSource::wait_for_settling()
{
    if (settling_.empty())
        return;
    const auto now = Loop::Clock::now();
    if (settle_timer_ == 0)
        settling_since_ = now;
    loop_.cancel(settle_timer_);
    const auto due = std::min(now + settle_time, settling_since_ + settle_limit);
    settle_timer_ = loop_.after(due - now, [this] { on_settled(); });
}

void FileSource::look_at(const Files &files)
{
    Decoder decoder;
    Readings readings;
    const auto read = [&](const std::string &name, Folder::Event event) {
        readings.emplace(name, read_file(folder_, decoder, name, event != Folder::Event::growing));
    };
    for (const auto &[name, event] : files)
        read(name, event);
    for (auto heirs = holdings_.heirs(readings); !heirs.empty(); heirs = holdings_.heirs(readings)) {
        for (const std::string &name : heirs)
            read(name, Folder::Event::written);
    }
    tell(holdings_.apply(std::move(readings), [this](const std::string &name) { return settling_.contains(name); }));
}

void FileSource::tell(Holdings::Upshot upshot)
{
    for (const std::string &line : upshot.refused)
        events_.refused(fmt::format("{}/{}", folder_.path(), line));
    for (const std::string &name : upshot.mended)
        spdlog::info("{}/{} can be read again", folder_.path(), name);
    if (!upshot.changes.empty())
        events_.changes(std::move(upshot.changes));
    for (const std::string &name : upshot.retry)
        note(name, Folder::Event::altered);
    if (!upshot.retry.empty())
        wait_for_settling();
}

} // namespace thruway
