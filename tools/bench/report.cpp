// SPDX-License-Identifier: Apache-2.0
#include "tools/bench/report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sys/utsname.h>
#include <thread>

namespace thruway::bench {
namespace {

using nlohmann::json;

std::string first_line_of(const char *command)
{
    std::string text(256, '\0');
    FILE *pipe = ::popen(command, "re");
    if (!pipe)
        return "";
    const size_t got = ::fread(text.data(), 1, text.size(), pipe);
    ::pclose(pipe);
    text.resize(got);
    return text.substr(0, text.find('\n'));
}

std::string cpu_model()
{
    std::ifstream info("/proc/cpuinfo");
    std::string line;
    while (std::getline(info, line))
        if (line.starts_with("model name"))
            return line.substr(line.find(':') + 2);
    return "unknown";
}

json machine()
{
    utsname names{};
    uname(&names);
    return {{"kernel", names.release},
            {"arch", names.machine},
            {"cpu", cpu_model()},
            {"cpus", std::thread::hardware_concurrency()}};
}

} // namespace

double percentile(std::vector<double> samples, double percent)
{
    std::ranges::sort(samples);
    const auto rank = static_cast<size_t>(std::ceil(percent / 100 * static_cast<double>(samples.size())));
    return samples.at(std::clamp<size_t>(rank, 1, samples.size()) - 1);
}

void Report::add(Row row)
{
    rows_.push_back(std::move(row));
}

void Report::add_percentiles(const std::string &name, const std::string &unit, const std::vector<double> &samples,
                             std::optional<double> goal50, std::optional<double> goal99)
{
    add({name + " p50", unit, percentile(samples, 50), samples, goal50});
    add({name + " p99", unit, percentile(samples, 99), {}, goal99});
}

void Report::skip(const std::string &what, const std::string &why)
{
    skipped_.emplace_back(what, why);
}

std::string Report::table() const
{
    std::string text = fmt::format("{:<64} {:>12} {:<6} {:>10}  {}\n", "WHAT", "VALUE", "UNIT", "GOAL", "MET");
    for (const Row &row : rows_)
        text += fmt::format("{:<64} {:>12.3f} {:<6} {:>10}  {}\n", row.name, row.value, row.unit,
                            row.goal ? fmt::format("<= {}", *row.goal) : "",
                            !row.goal                ? ""
                            : row.value <= *row.goal ? "yes"
                                                     : "NO");
    for (const auto &[what, why] : skipped_)
        text += fmt::format("skipped {}: {}\n", what, why);
    return text;
}

std::string Report::json() const
{
    nlohmann::json rows = nlohmann::json::array();
    for (const Row &row : rows_) {
        nlohmann::json one{{"name", row.name}, {"unit", row.unit}, {"value", row.value}, {"samples", row.samples}};
        if (row.goal)
            one["goal"] = *row.goal;
        rows.push_back(std::move(one));
    }
    nlohmann::json all{
        {"machine", machine()}, {"commit", first_line_of("git rev-parse HEAD 2>/dev/null")}, {"rows", rows}};
    for (const auto &[what, why] : skipped_)
        all["skipped"].push_back({{"name", what}, {"reason", why}});
    return all.dump(2) + "\n";
}

} // namespace thruway::bench
