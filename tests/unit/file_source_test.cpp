// SPDX-License-Identifier: Apache-2.0
#include "agent/file/source.h"

#include "agent/file/manifest.h"
#include "agent/state/fingerprint.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <condition_variable>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <latch>
#include <memory>
#include <mutex>
#include <thread>

using namespace thruway;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

namespace {

class TempFolder {
public:
    TempFolder()
    {
        std::string path = fs::temp_directory_path() / "thruway-test-XXXXXX";
        REQUIRE(mkdtemp(path.data()) != nullptr);
        path_ = path;
    }
    TempFolder(const TempFolder &) = delete;
    TempFolder &operator=(const TempFolder &) = delete;
    ~TempFolder() { fs::remove_all(path_); }

    [[nodiscard]] const fs::path &path() const { return path_; }

private:
    fs::path path_;
};

void write(const fs::path &path, const std::string &text)
{
    std::ofstream(path, std::ios::trunc) << text;
}

/// As careful writers do it.
void replace(const fs::path &path, const std::string &text)
{
    const fs::path temporary = path.parent_path() / ".temporary";
    write(temporary, text);
    fs::rename(temporary, path);
}

std::string service(const std::string &name, int port = 80)
{
    return fmt::format(R"(---
apiVersion: v1
kind: Service
metadata:
  name: {}
spec:
  clusterIP: 10.0.0.1
  ports:
  - port: {}
)",
                       name, port);
}

/// A FileSource in a loop of its own, and what it has told so far.
class Watcher {
public:
    explicit Watcher(const fs::path &folder)
        : source_(loop_, folder,
                  {.changes = [this](const std::vector<Change> &changes) { on_changes(changes); },
                   .synced = [this] { on_synced(); },
                   .refused = [this](const std::string &line) { on_refused(line); }})
    {
        REQUIRE(source_.start());
        thread_ = std::jthread([this] { loop_.run(); });
    }
    Watcher(const Watcher &) = delete;
    Watcher &operator=(const Watcher &) = delete;
    ~Watcher()
    {
        loop_.post([this] { loop_.stop(); });
    }

    /// Waits until the port of each Service is as in `ports`, and there are no others.
    void wait_for(const std::map<std::string, int> &ports)
    {
        INFO("told: " << fmt::format("{}", fmt::join(journal(), "; ")));
        CHECK(wait([&] { return ports_ == ports; }));
    }
    void wait_for_synced()
    {
        CHECK(wait([&] { return synced_ > 0; }));
    }
    void wait_for_refusals(size_t count)
    {
        CHECK(wait([&] { return refused_.size() >= count; }));
    }

    /// Waits until everything that has happened in `folder` before has been told.
    void settle(const fs::path &folder)
    {
        const fs::path fence = folder / "zz-fence.yaml";
        const auto with = [&] { return ports_.contains("fence"); };
        write(fence, service("fence"));
        CHECK(wait(with));
        fs::remove(fence);
        CHECK(wait([&] { return !with(); }));
        const std::lock_guard guard(mutex_);
        std::erase_if(journal_, [](const std::string &line) { return line.contains("fence"); });
    }

    /// Keeps the source from noticing anything while `work` runs.
    template<typename Work>
    void while_busy(Work work)
    {
        struct Latches {
            std::latch begun{1};
            std::latch done{1};
        };
        // Shared, because the loop may still be leaving a latch that has opened.
        const auto latches = std::make_shared<Latches>();
        loop_.post([latches] {
            latches->begun.count_down();
            latches->done.wait();
        });
        latches->begun.wait();
        work();
        latches->done.count_down();
    }

    /// "web=80" for each upsert, "-web" for each delete, in order, each batch in brackets.
    std::vector<std::string> journal()
    {
        const std::lock_guard guard(mutex_);
        return journal_;
    }
    std::vector<std::string> refused()
    {
        const std::lock_guard guard(mutex_);
        return refused_;
    }
    int synced()
    {
        const std::lock_guard guard(mutex_);
        return synced_;
    }

private:
    template<typename Condition>
    bool wait(Condition condition)
    {
        std::unique_lock lock(mutex_);
        return told_.wait_for(lock, 20s, condition);
    }

    void on_changes(const std::vector<Change> &changes)
    {
        const std::lock_guard guard(mutex_);
        std::vector<std::string> batch;
        for (const Change &change : changes) {
            if (const auto *upsert = std::get_if<Upsert>(&change)) {
                const auto &told = std::get<Service>(upsert->object);
                ports_[told.name.name] = told.ports.at(0).port;
                batch.push_back(fmt::format("{}={}", told.name.name, told.ports.at(0).port));
            } else {
                const std::string &name = std::get<Delete>(change).key.name.name;
                batch.push_back((ports_.erase(name) > 0 ? "-" : "--") + name);
            }
        }
        std::ranges::sort(batch);
        journal_.push_back(fmt::format("{}", fmt::join(batch, " ")));
        told_.notify_all();
    }
    void on_synced()
    {
        const std::lock_guard guard(mutex_);
        synced_++;
        journal_.emplace_back("synced");
        told_.notify_all();
    }
    void on_refused(const std::string &line)
    {
        const std::lock_guard guard(mutex_);
        refused_.push_back(line);
        told_.notify_all();
    }

    Loop loop_;
    std::mutex mutex_; // guards the next four
    std::map<std::string, int> ports_;
    std::vector<std::string> journal_;
    std::vector<std::string> refused_;
    int synced_ = 0;
    std::condition_variable told_;
    FileSource source_;
    std::jthread thread_; // ends before the rest
};

using Lines = std::vector<std::string>;

} // namespace

TEST_CASE("A source tells all manifests of its folder, and then that it has synced")
{
    const TempFolder folder;
    write(folder.path() / "a.yaml", service("a", 1) + service("b", 2));
    write(folder.path() / "c.yml", service("c", 3));
    write(folder.path() / "d.json", R"({"apiVersion":"v1","kind":"Service","metadata":{"name":"d"},
                                        "spec":{"clusterIP":"10.0.0.1","ports":[{"port":4}]}})");
    write(folder.path() / ".hidden.yaml", service("hidden"));
    write(folder.path() / "e.yaml~", service("backup"));
    write(folder.path() / "README.md", "not a manifest");
    write(folder.path() / "empty.yaml", "");
    fs::create_directory(folder.path() / "folder.yaml");
    write(folder.path() / "folder.yaml" / "f.yaml", service("below"));

    Watcher watcher(folder.path());
    watcher.wait_for_synced();
    CHECK(watcher.journal() == Lines{"a=1 b=2 c=3 d=4", "synced"});
    CHECK(watcher.refused().empty());
}

TEST_CASE("An empty folder syncs without changes")
{
    const TempFolder folder;
    Watcher watcher(folder.path());
    watcher.wait_for_synced();
    CHECK(watcher.journal() == Lines{"synced"});
}

TEST_CASE("Files that come, change and go are followed")
{
    const TempFolder folder;
    write(folder.path() / "a.yaml", service("a", 1));
    Watcher watcher(folder.path());
    watcher.wait_for({{"a", 1}});

    write(folder.path() / "b.yaml", service("b", 2));
    watcher.wait_for({{"a", 1}, {"b", 2}});
    write(folder.path() / "a.yaml", service("a", 3));
    watcher.wait_for({{"a", 3}, {"b", 2}});
    replace(folder.path() / "a.yaml", service("a", 4) + service("c", 5));
    watcher.wait_for({{"a", 4}, {"b", 2}, {"c", 5}});
    fs::create_hard_link(folder.path() / "b.yaml", folder.path() / ".b");
    fs::remove(folder.path() / "b.yaml");
    watcher.wait_for({{"a", 4}, {"c", 5}});
    fs::create_hard_link(folder.path() / ".b", folder.path() / "b.yaml");
    watcher.wait_for({{"a", 4}, {"b", 2}, {"c", 5}});
    fs::rename(folder.path() / "a.yaml", folder.path() / "a.txt");
    watcher.wait_for({{"b", 2}});
    CHECK(watcher.synced() == 1);
    CHECK(watcher.refused().empty());
}

TEST_CASE("What does not change an object is not told")
{
    const TempFolder folder;
    write(folder.path() / "a.yaml", service("a") + service("b"));
    Watcher watcher(folder.path());
    watcher.wait_for_synced();

    write(folder.path() / "a.yaml", "# comment\n" + service("b") + service("a") + "status: {}\n");
    watcher.settle(folder.path());
    replace(folder.path() / "a.yaml", service("a") + service("b"));
    watcher.settle(folder.path());
    fs::rename(folder.path() / "a.yaml", folder.path() / "b.yaml");
    watcher.settle(folder.path());
    CHECK(watcher.journal() == Lines{"a=80 b=80", "synced"});
    CHECK(watcher.refused().empty());
}

TEST_CASE("A file that does not parse keeps its last good state, and is told once")
{
    const TempFolder folder;
    const fs::path file = folder.path() / "a.yaml";
    write(file, service("a", 1) + service("b", 2));
    Watcher watcher(folder.path());
    watcher.wait_for_synced();

    write(file, service("a", 3) + "spec: [");
    watcher.wait_for_refusals(1);
    write(file, service("a", 3) + "spec: {");
    watcher.settle(folder.path());
    REQUIRE(watcher.refused().size() == 1);
    CHECK(watcher.refused()[0].starts_with(file.string() + ": line "));
    CHECK(watcher.journal() == Lines{"a=1 b=2", "synced"});

    write(file, service("a", 4));
    watcher.wait_for({{"a", 4}});
    write(file, "spec: [");
    watcher.wait_for_refusals(2);
}

TEST_CASE("A file that is bad from the start is told, and read when it is good")
{
    const TempFolder folder;
    write(folder.path() / "a.yaml", "a: b: c");
    Watcher watcher(folder.path());
    watcher.wait_for_synced();
    REQUIRE(watcher.refused().size() == 1);
    CHECK(watcher.refused()[0].starts_with((folder.path() / "a.yaml").string() + ": line 1, column 5: "));
    write(folder.path() / "a.yaml", service("a", 1));
    watcher.wait_for({{"a", 1}});
}

TEST_CASE("A bad object is skipped and keeps its last good state; the others of its file are taken")
{
    const TempFolder folder;
    const fs::path file = folder.path() / "a.yaml";
    write(file, service("a", 1) + service("b", 2) + service("c", 0));
    Watcher watcher(folder.path());
    watcher.wait_for({{"a", 1}, {"b", 2}});

    write(file, service("a", 70000) + service("b", 3) + service("c", 0));
    watcher.wait_for({{"a", 1}, {"b", 3}});
    write(file, service("a", 70000) + service("b", 4) + service("c", 0));
    watcher.wait_for({{"a", 1}, {"b", 4}});
    const std::string path = file.string();
    CHECK(watcher.refused() == Lines{path + ": Service default/c: spec.ports[0].port: must be 1 to 65535, is 0",
                                     path + ": Service default/a: spec.ports[0].port: must be 1 to 65535, is 70000"});

    write(file, service("b", 4));
    watcher.wait_for({{"b", 4}});
}

TEST_CASE("Kinds that are not used are told once a file and kind")
{
    const TempFolder folder;
    const std::string deployment = "---\napiVersion: apps/v1\nkind: Deployment\n";
    write(folder.path() / "a.yaml", deployment + deployment + service("a", 1));
    Watcher watcher(folder.path());
    watcher.wait_for({{"a", 1}});
    write(folder.path() / "a.yaml", deployment + service("a", 2) + deployment);
    watcher.wait_for({{"a", 2}});
    CHECK(watcher.refused() ==
          Lines{(folder.path() / "a.yaml").string() + R"(: kind "Deployment" of "apps/v1" is not used)"});
}

TEST_CASE("Of two files with the same object the first keeps it, and the other takes over")
{
    const TempFolder folder;
    write(folder.path() / "a.yaml", service("web", 1));
    write(folder.path() / "b.yaml", service("web", 2) + service("b", 3));
    Watcher watcher(folder.path());
    watcher.wait_for({{"web", 1}, {"b", 3}});
    CHECK(watcher.refused() == Lines{(folder.path() / "b.yaml").string() +
                                     ": Service default/web: a.yaml has it too, had it first, and counts"});

    write(folder.path() / "b.yaml", service("web", 4) + service("b", 5));
    watcher.wait_for({{"web", 1}, {"b", 5}});
    write(folder.path() / "a.yaml", service("a", 6));
    watcher.wait_for({{"web", 4}, {"b", 5}, {"a", 6}});
    write(folder.path() / "c.yaml", service("web", 7));
    watcher.wait_for_refusals(2);
    fs::remove(folder.path() / "b.yaml");
    watcher.wait_for({{"web", 7}, {"a", 6}});
    fs::remove(folder.path() / "c.yaml");
    watcher.wait_for({{"a", 6}});
    for (const std::string &batch : watcher.journal())
        CHECK((!batch.contains("-web") || batch == "-web"));
}

TEST_CASE("An object that is twice in a file is told, and the first one counts")
{
    const TempFolder folder;
    write(folder.path() / "a.yaml", service("web", 1) + service("web", 2));
    Watcher watcher(folder.path());
    watcher.wait_for({{"web", 1}});
    CHECK(watcher.refused() == Lines{(folder.path() / "a.yaml").string() +
                                     ": Service default/web: twice in this file, and the first one counts"});
}

TEST_CASE("Objects that move between files at once are neither deleted nor refused")
{
    const TempFolder folder;
    write(folder.path() / "a.yaml", service("x", 1));
    write(folder.path() / "b.yaml", service("y", 2));
    Watcher watcher(folder.path());
    watcher.wait_for_synced();
    watcher.while_busy([&] {
        write(folder.path() / "a.yaml", service("y", 2));
        write(folder.path() / "b.yaml", service("x", 1));
    });
    watcher.settle(folder.path());
    watcher.while_busy([&] {
        fs::rename(folder.path() / "a.yaml", folder.path() / "c.yaml");
        fs::rename(folder.path() / "b.yaml", folder.path() / "a.yaml");
    });
    watcher.settle(folder.path());
    CHECK(watcher.journal() == Lines{"x=1 y=2", "synced"});
    CHECK(watcher.refused().empty());
}

TEST_CASE("Files that change together are told together")
{
    const TempFolder folder;
    Watcher watcher(folder.path());
    watcher.wait_for_synced();
    watcher.while_busy([&] {
        write(folder.path() / "a.yaml", service("a", 1));
        write(folder.path() / "b.yaml", service("b", 2));
        replace(folder.path() / "c.yaml", service("c", 3));
    });
    watcher.wait_for({{"a", 1}, {"b", 2}, {"c", 3}});
    CHECK(watcher.journal() == Lines{"synced", "a=1 b=2 c=3"});
}

TEST_CASE("A file that its writer does not close is read when the writer pauses")
{
    const TempFolder folder;
    Watcher watcher(folder.path());
    watcher.wait_for_synced();
    std::ofstream file(folder.path() / "a.yaml");
    file << service("a", 1) << std::flush;
    watcher.wait_for({{"a", 1}});
    file << service("b", 2) << std::flush;
    watcher.wait_for({{"a", 1}, {"b", 2}});
}

TEST_CASE("A file that was emptied takes nothing away until its writer closes it")
{
    const TempFolder folder;
    write(folder.path() / "a.yaml", service("a", 1));
    Watcher watcher(folder.path());
    watcher.wait_for_synced();
    {
        const std::ofstream file(folder.path() / "a.yaml", std::ios::trunc);
        watcher.settle(folder.path());
        CHECK(watcher.journal() == Lines{"a=1", "synced"});
    }
    watcher.wait_for({});
}

TEST_CASE("A file that is written byte by byte keeps its last good state to the end, and is told once")
{
    const TempFolder folder;
    const auto json = [](int port) {
        return fmt::format(R"({{"apiVersion":"v1","kind":"Service","metadata":{{"name":"a"}},)"
                           R"("spec":{{"clusterIP":"10.0.0.1","ports":[{{"port":{}}}]}}}})",
                           port);
    };
    write(folder.path() / "a.json", json(10));
    Watcher watcher(folder.path());
    watcher.wait_for_synced();
    {
        const Fd file(open((folder.path() / "a.json").c_str(), O_WRONLY | O_TRUNC));
        const std::string text = json(8080);
        for (size_t i = 0; i + 1 < text.size(); i++) {
            REQUIRE(::write(file.get(), &text[i], 1) == 1);
            // In the middle, the source has all the time it wants for looking at the file.
            if (i == text.size() / 2)
                watcher.wait_for_refusals(1);
        }
        CHECK(watcher.journal() == Lines{"a=10", "synced"});
        REQUIRE(::write(file.get(), &text.back(), 1) == 1);
    }
    watcher.wait_for({{"a", 8080}});
    CHECK(watcher.journal() == Lines{"a=10", "synced", "a=8080"});
    REQUIRE(watcher.refused().size() == 1);
    CHECK(watcher.refused()[0].ends_with(": ends within the object that begins in line 1"));
}

TEST_CASE("Every prefix of a file leaves its objects as they were, or as the prefix says")
{
    const std::string before = service("a", 10) + service("b", 20);
    const std::string after = service("a", 30) + service("b", 40);
    Decoder decoder;
    const auto reading_of = [&](const std::string &text, bool complete) {
        auto objects = read_manifest(decoder, "a.yaml", text);
        if (!objects)
            return Reading{.state = Reading::State::broken, .error = objects.error().text()};
        return Reading{.state = Reading::State::good, .objects = std::move(*objects), .complete = complete};
    };
    const auto apply = [&](Holdings &holdings, const std::string &text, bool complete) {
        Readings readings;
        readings.emplace("a.yaml", reading_of(text, complete));
        return holdings.apply(std::move(readings), [](const std::string &) { return false; });
    };

    Holdings holdings;
    std::map<std::string, int> ports{{"a", 10}, {"b", 20}};
    CHECK(apply(holdings, before, true).changes.size() == 2);
    for (size_t size = 0; size < after.size(); size++) {
        INFO(after.substr(0, size));
        for (const Change &change : apply(holdings, after.substr(0, size), false).changes) {
            REQUIRE(std::holds_alternative<Upsert>(change));
            const auto &told = std::get<Service>(std::get<Upsert>(change).object);
            ports[told.name.name] = told.ports.at(0).port;
        }
        // A number that is cut off is a number too.
        CHECK((ports["a"] == 10 || ports["a"] == 3 || ports["a"] == 30));
        CHECK((ports["b"] == 20 || ports["b"] == 4 || ports["b"] == 40));
        CHECK(ports.size() == 2);
    }
    CHECK(apply(holdings, after, true).changes.empty());
    CHECK(apply(holdings, service("a", 30), true).changes.size() == 1);
}

TEST_CASE("A file that stops within a line is not believed before its writer closes it")
{
    const TempFolder folder;
    write(folder.path() / "a.yaml", service("a", 1));
    Watcher watcher(folder.path());
    watcher.wait_for_synced();
    const std::string text = service("a", 80);
    {
        std::ofstream file(folder.path() / "a.yaml", std::ios::trunc);
        file << text.substr(0, text.size() - 2) << std::flush;
        watcher.wait_for_refusals(1);
        CHECK(watcher.journal() == Lines{"a=1", "synced"});
    }
    watcher.wait_for({{"a", 8}});
    CHECK(watcher.refused() == Lines{(folder.path() / "a.yaml").string() + ": half written: ends within a line"});
}

TEST_CASE("A folder that is missing at start is told once, and read when it appears")
{
    const TempFolder top;
    const fs::path folder = top.path() / "x" / "manifests";
    Watcher watcher(folder);
    watcher.wait_for_refusals(1);
    CHECK(watcher.refused() == Lines{"cannot read folder " + folder.string() + ": No such file or directory"});
    CHECK(watcher.synced() == 0);

    fs::create_directories(top.path() / "prepared");
    write(top.path() / "prepared" / "a.yaml", service("a", 1));
    fs::create_directory(folder.parent_path());
    fs::rename(top.path() / "prepared", folder);
    watcher.wait_for_synced();
    CHECK(watcher.journal() == Lines{"a=1", "synced"});
    write(folder / "b.yaml", service("b", 2));
    watcher.wait_for({{"a", 1}, {"b", 2}});
    CHECK(watcher.refused().size() == 1);
}

TEST_CASE("A folder that goes takes nothing with it, and is compared when it is back")
{
    const TempFolder top;
    const fs::path folder = top.path() / "manifests";
    fs::create_directory(folder);
    for (const char *name : {"a", "b", "c"})
        write(folder / (name + std::string(".yaml")), service(name, 1));
    Watcher watcher(folder);
    watcher.wait_for_synced();

    SECTION("removed file by file")
    {
        watcher.while_busy([&] { fs::remove_all(folder); });
        watcher.wait_for_refusals(1);
        fs::create_directory(top.path() / "other");
    }
    SECTION("moved away")
    {
        fs::rename(folder, top.path() / "other");
        watcher.wait_for_refusals(1);
        write(top.path() / "other" / "a.yaml", service("a", 9));
        fs::remove(top.path() / "other" / "c.yaml");
    }
    CHECK(watcher.journal() == Lines{"a=1 b=1 c=1", "synced"});
    write(top.path() / "other" / "a.yaml", service("a", 1));
    write(top.path() / "other" / "b.yaml", service("b", 2));
    fs::rename(top.path() / "other", folder);
    watcher.wait_for({{"a", 1}, {"b", 2}});
    CHECK(watcher.journal() == Lines{"a=1 b=1 c=1", "synced", "b=2", "-c"});
    CHECK(watcher.refused() == Lines{"cannot read folder " + folder.string() + ": No such file or directory"});
    CHECK(watcher.synced() == 1);
}

TEST_CASE("A folder that is replaced by another at once is compared with it")
{
    const TempFolder top;
    const fs::path folder = top.path() / "manifests";
    fs::create_directory(folder);
    write(folder / "a.yaml", service("a", 1));
    Watcher watcher(folder);
    watcher.wait_for_synced();
    watcher.while_busy([&] {
        fs::remove_all(folder);
        fs::create_directory(folder);
        write(folder / "b.yaml", service("b", 2));
    });
    watcher.wait_for({{"b", 2}});
    write(folder / "c.yaml", service("c", 3));
    watcher.wait_for({{"b", 2}, {"c", 3}});
    CHECK(watcher.refused().empty());
}

TEST_CASE("A link to the folder that is switched is followed")
{
    const TempFolder top;
    for (const char *version : {"v1", "v2"})
        fs::create_directories(top.path() / version / "manifests");
    write(top.path() / "v1" / "manifests" / "a.yaml", service("a", 1));
    write(top.path() / "v1" / "manifests" / "b.yaml", service("b", 1));
    write(top.path() / "v2" / "manifests" / "a.yaml", service("a", 2));
    fs::create_directory_symlink("v1", top.path() / "current");
    const fs::path folder = top.path() / "current" / "manifests";

    Watcher watcher(folder);
    watcher.wait_for({{"a", 1}, {"b", 1}});
    fs::create_directory_symlink("v2", top.path() / "next");
    fs::rename(top.path() / "next", top.path() / "current");
    watcher.wait_for({{"a", 2}});
    write(folder / "c.yaml", service("c", 3));
    watcher.wait_for({{"a", 2}, {"c", 3}});
}

TEST_CASE("A ConfigMap that is mounted as folder is followed")
{
    const TempFolder folder;
    const auto publish = [&](const std::string &version, const std::map<std::string, int> &ports) {
        fs::create_directory(folder.path() / version);
        for (const auto &[name, port] : ports)
            write(folder.path() / version / (name + ".yaml"), service(name, port));
        fs::create_directory_symlink(version, folder.path() / "..data_tmp");
        fs::rename(folder.path() / "..data_tmp", folder.path() / "..data");
        for (const auto &[name, port] : ports) {
            if (!fs::is_symlink(folder.path() / (name + ".yaml")))
                fs::create_symlink("..data/" + name + ".yaml", folder.path() / (name + ".yaml"));
        }
    };
    publish("..v1", {{"a", 1}, {"b", 1}});
    Watcher watcher(folder.path());
    watcher.wait_for({{"a", 1}, {"b", 1}});
    publish("..v2", {{"a", 1}, {"b", 2}, {"c", 2}});
    watcher.wait_for({{"a", 1}, {"b", 2}, {"c", 2}});
    publish("..v3", {{"b", 3}});
    watcher.wait_for({{"b", 3}});
    CHECK(watcher.journal().front() == "a=1 b=1");
    CHECK(watcher.refused().empty());
}

TEST_CASE("When events were lost, the whole folder is compared")
{
    const TempFolder folder;
    size_t most = 0;
    std::ifstream("/proc/sys/fs/inotify/max_queued_events") >> most;
    REQUIRE(most > 0);
    write(folder.path() / "gone.yaml", service("gone", 1));
    write(folder.path() / "same.yaml", service("same", 1));
    Watcher watcher(folder.path());
    watcher.wait_for_synced();
    watcher.while_busy([&] {
        for (size_t i = 0; i <= most; i++) {
            const fs::path file = folder.path() / fmt::format("not-a-manifest-{}", i % 2);
            std::ofstream{file};
        }
        fs::remove(folder.path() / "gone.yaml");
        write(folder.path() / "new.yaml", service("new", 2));
    });
    watcher.wait_for({{"same", 1}, {"new", 2}});
    CHECK(watcher.journal() == Lines{"gone=1 same=1", "synced", "new=2", "-gone"});
}

TEST_CASE("A file that cannot be read keeps its last good state")
{
    const TempFolder folder;
    write(folder.path() / "a.yaml", service("a", 1));
    Watcher watcher(folder.path());
    watcher.wait_for_synced();
    // A link to itself cannot be opened, even by root.
    fs::create_symlink("a.yaml", folder.path() / "loop.yaml");
    fs::rename(folder.path() / "loop.yaml", folder.path() / "a.yaml");
    watcher.wait_for_refusals(1);
    CHECK(watcher.refused() ==
          Lines{(folder.path() / "a.yaml").string() + ": cannot be read: Too many levels of symbolic links"});
    CHECK(watcher.journal() == Lines{"a=1", "synced"});
    replace(folder.path() / "a.yaml", service("a", 2));
    watcher.wait_for({{"a", 2}});
}

TEST_CASE("The fingerprint of an object changes with each of its fields")
{
    const auto address = [](std::string_view text) { return Address::parse(text).value(); };
    std::vector<Object> objects;
    const auto vary = [&]<typename T>(const T &base, auto... changes) {
        objects.emplace_back(base);
        const auto add = [&](auto change) {
            T changed = base;
            change(changed);
            objects.emplace_back(std::move(changed));
        };
        (add(changes), ...);
    };
    vary(
        Service{.name = {Symbol("a"), "b"}}, [](Service &s) { s.name.space = Symbol("x"); },
        [](Service &s) { s.name.name = "x"; }, [](Service &s) { s.type = ServiceType::node_port; },
        [](Service &s) { s.proxied = false; }, [](Service &s) { s.created = 1; },
        [&](Service &s) { s.cluster_ips = {address("10.0.0.1")}; },
        [&](Service &s) { s.cluster_ips = {address("10.0.0.2")}; }, [](Service &s) { s.ports = {{.port = 1}}; },
        [](Service &s) { s.ports = {{.port = 1, .node_port = 2}}; },
        [](Service &s) { s.ports = {{.name = Symbol("a"), .port = 1}}; },
        [](Service &s) { s.ports = {{.protocol = Protocol::udp, .port = 1}}; });
    vary(
        EndpointSlice{.name = {Symbol("a"), "b"}}, [](EndpointSlice &s) { s.service = "x"; },
        [](EndpointSlice &s) { s.family = Family::ipv6; }, [](EndpointSlice &s) { s.triggered = 1; },
        [](EndpointSlice &s) { s.ports = {{.port = 1}}; }, [](EndpointSlice &s) { s.add_pod("x"); },
        [](EndpointSlice &s) { s.endpoints = {{}}; }, [](EndpointSlice &s) { s.endpoints = {{.pod = 1}}; },
        [](EndpointSlice &s) { s.endpoints = {{.node = Symbol("x")}}; },
        [](EndpointSlice &s) { s.endpoints = {{.conditions = 0}}; },
        [&](EndpointSlice &s) { s.endpoints = {{.address = address("10.0.0.1")}}; });
    vary(
        Node{.name = {Symbol(), "a"}}, [&](Node &n) { n.addresses = {address("10.0.0.1")}; },
        [](Node &n) { n.pod_cidrs = {Prefix::parse("10.0.0.0/8").value()}; },
        [](Node &n) { n.pod_cidrs = {Prefix::parse("10.0.0.0/9").value()}; });
    vary(
        Pod{.name = {Symbol("a"), "a"}}, [](Pod &p) { p.node = Symbol("x"); }, [](Pod &p) { p.host_network = true; },
        [](Pod &p) { p.finished = true; }, [&](Pod &p) { p.addresses = {address("10.0.0.1")}; });
    vary(Namespace{.name = {Symbol(), "x"}}, [](Namespace &n) { n.name.name = "y"; });

    std::map<uint64_t, size_t> seen;
    for (size_t i = 0; i < objects.size(); i++) {
        const auto [other, is_new] = seen.emplace(fingerprint_of(objects[i]), i);
        INFO("objects " << other->second << " and " << i);
        CHECK(is_new);
        CHECK(fingerprint_of(objects[i]) == fingerprint_of(objects[i]));
    }
}
