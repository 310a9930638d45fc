// SPDX-License-Identifier: Apache-2.0
#include "tools/thruway/listing.h"

#include "tools/thruway/yaml.h"

#include <algorithm>

namespace thruway::cli {
namespace {

using Cells = std::vector<std::string>;

std::vector<Column> shown(const Listing &listing, Format format)
{
    std::vector<Column> columns = listing.columns;
    if (format != Format::wide)
        std::erase_if(columns, [](const Column &c) { return c.wide; });
    return columns;
}

/// The text with all lines but the first moved to the right.
std::string hanging(std::string_view text, size_t width)
{
    std::string moved;
    for (const char c : text) {
        moved += c;
        if (c == '\n')
            moved.append(width, ' ');
    }
    return moved;
}

/// Columns as wide as they need to be, two spaces apart.
Result<> print_table(const Listing &listing, const std::vector<Column> &columns, std::ostream &out)
{
    std::vector<Cells> lines(1);
    for (const Column &c : columns)
        lines.front().push_back(c.header);
    auto done = listing.produce([&](const Row &row) {
        Cells &cells = lines.emplace_back();
        for (const Column &c : columns) {
            std::string text = c.text(row);
            cells.push_back(text.empty() ? "-" : std::move(text));
        }
    });
    if (!done)
        return done;

    std::vector<size_t> widths(columns.size());
    for (const Cells &cells : lines)
        for (size_t i = 0; i < cells.size(); i++)
            widths[i] = std::max(widths[i], cells[i].size());
    for (const Cells &cells : lines) {
        std::string line;
        for (size_t i = 0; i + 1 < cells.size(); i++)
            line += fmt::format("{:{}}  ", cells[i], widths[i]);
        out << line << cells.back() << '\n';
    }
    return {};
}

/// "HEADER  text", further lines of the text below its first one.
Result<> print_records(const Listing &listing, const std::vector<Column> &columns, std::ostream &out)
{
    size_t width = 0;
    for (const Column &c : columns)
        width = std::max(width, c.header.size());
    bool first = true;
    return listing.produce([&](const Row &row) {
        if (!std::exchange(first, false))
            out << '\n';
        for (const Column &c : columns)
            if (const std::string text = c.text(row); !text.empty())
                out << fmt::format("{:{}}  {}\n", c.header, width, hanging(text, width + 2));
    });
}

std::string json_text(const Row &row)
{
    return row.dump(2, ' ', false, Row::error_handler_t::replace);
}

Result<> print_json(const Listing &listing, std::ostream &out)
{
    if (listing.shape == Shape::record)
        return listing.produce([&](const Row &row) { out << json_text(row) << '\n'; });
    bool first = true;
    auto done = listing.produce([&](const Row &row) {
        // A line break in a string is escaped: these are the layout's own.
        out << (std::exchange(first, false) ? "[\n  " : ",\n  ") << hanging(json_text(row), 2);
    });
    if (done)
        out << (first ? "[]\n" : "\n]\n");
    return done;
}

Result<> print_yaml(const Listing &listing, std::ostream &out)
{
    if (listing.shape == Shape::record)
        return listing.produce([&](const Row &row) { out << yaml_text(row); });
    bool first = true;
    auto done = listing.produce([&](const Row &row) {
        first = false;
        out << yaml_text(Row::array({row}));
    });
    if (done && first)
        out << yaml_text(Row::array());
    return done;
}

/// The value that a pointer leads to, null if there is none.
const Row &value_at(const Row &row, const Row::json_pointer &pointer)
{
    static const Row nothing;
    return row.contains(pointer) ? row[pointer] : nothing;
}

} // namespace

Column column(std::string header, const std::string &pointer)
{
    return {std::move(header),
            [at = Row::json_pointer(pointer)](const Row &row) { return cell_text(value_at(row, at)); }};
}

Column column_of_each(std::string header, const std::string &pointer, const std::string &key)
{
    return {std::move(header), [at = Row::json_pointer(pointer), key](const Row &row) {
                Row values = Row::array();
                for (const Row &element : value_at(row, at))
                    if (element.contains(key) && std::ranges::find(values, element[key]) == values.end())
                        values.push_back(element[key]);
                return cell_text(values);
            }};
}

Column wide(Column column)
{
    column.wide = true;
    return column;
}

std::string cell_text(const Row &value)
{
    if (value.is_null())
        return {};
    if (value.is_string())
        return value.get<std::string>();
    if (value.is_boolean())
        return value.get<bool>() ? "yes" : "no";
    if (!value.is_array())
        return value.dump();
    std::string text;
    for (const Row &element : value)
        text += (text.empty() ? "" : ",") + cell_text(element);
    return text;
}

void set_text(Row &row, const char *key, std::string_view text)
{
    if (!text.empty())
        row[key] = text;
}

Result<> print(const Listing &listing, Format format, std::ostream &out)
{
    switch (format) {
    case Format::json:
        return print_json(listing, out);
    case Format::yaml:
        return print_yaml(listing, out);
    case Format::table:
    case Format::wide:
        break;
    }
    const std::vector<Column> columns = shown(listing, format);
    return listing.shape == Shape::list ? print_table(listing, columns, out) : print_records(listing, columns, out);
}

} // namespace thruway::cli
