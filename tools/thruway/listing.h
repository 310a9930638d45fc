// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"

#include <functional>
#include <nlohmann/json.hpp>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

/// What every command prints: rows of typed JSON, and which parts of a row a table shows. All formats come from it.
namespace thruway::cli {

/// One element of a listing. Keys stand in the order in which they were set; what is not known has no key.
using Row = nlohmann::ordered_json;

/// Takes the rows of a listing one by one, as they are found.
using Sink = std::function<void(const Row &)>;

enum class Format : uint8_t { table, wide, json, yaml };

/// What a table shows of a row.
struct Column {
    std::string header;
    std::function<std::string(const Row &)> text; ///< of the cell; empty if there is nothing to show
    bool wide = false;                            ///< shown only by -o wide
};

/// A column that shows the value at a JSON pointer ("/source/address").
Column column(std::string header, const std::string &pointer);

/// A column that shows one key of each object in the array at `pointer`, without repetitions.
Column column_of_each(std::string header, const std::string &pointer, const std::string &key);

/// The same column, only in wide tables.
Column wide(Column column);

/// Values as tables show them: words and numbers as they are, "yes" and "no", lists with commas; empty for what is
/// not there.
std::string cell_text(const Row &value);

/// Sets a key, unless the text is empty: what is absent has no key.
void set_text(Row &row, const char *key, std::string_view text);

/// How a listing is laid out. JSON and YAML of `list` and `records` are an array, that of `record` is its only row.
enum class Shape : uint8_t {
    list,    ///< tables have a line for each row
    records, ///< tables have a paragraph for each row, with a line for each column that has something to show
    record,  ///< one such paragraph
};

struct Listing {
    Shape shape = Shape::list;
    std::vector<Column> columns;
    std::function<Result<>(const Sink &)> produce; ///< gives all rows to the sink
};

/// Writes a listing. Nothing is written if it fails before its first row.
Result<> print(const Listing &listing, Format format, std::ostream &out);

} // namespace thruway::cli
