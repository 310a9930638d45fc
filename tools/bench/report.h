// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"

#include <optional>
#include <string>
#include <vector>

namespace thruway::bench {

/// One figure, with the samples that it was made of, so that anybody can make another one of them.
struct Row {
    std::string name;
    std::string unit;
    double value = 0;
    std::vector<double> samples;
    std::optional<double> goal; ///< at most this much
};

/// Value of a row from its samples.
double percentile(std::vector<double> samples, double percent);

/// Rows as they come, and what could not be measured and why.
class Report {
public:
    void add(Row row);

    /// Adds "NAME p50" and "NAME p99".
    void add_percentiles(const std::string &name, const std::string &unit, const std::vector<double> &samples,
                         std::optional<double> goal50, std::optional<double> goal99);
    void skip(const std::string &what, const std::string &why);

    /// A table for the terminal.
    [[nodiscard]] std::string table() const;

    /// {machine, commit, rows: [{name, unit, value, samples, goal}], skipped}.
    [[nodiscard]] std::string json() const;

private:
    std::vector<Row> rows_;
    std::vector<std::pair<std::string, std::string>> skipped_;
};

} // namespace thruway::bench
