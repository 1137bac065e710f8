#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "pager/page_protocol.h"
#include "pager/page_reader.h"

namespace migrate {

/// Adds a page that follows those of `runs`.
void append_page(std::vector<PushRun>& runs, std::uint64_t address, PageKind kind);
std::uint64_t count_pages(const std::vector<PushRun>& runs, PageKind kind);

/// Reads `ranges` (at most kMaxPushRuns) into `buffer`, closing it up to the data pages; one run
/// for each kind. Errors: as PageReader::read().
Result<void> read_runs(PageReader& reader, std::span<const PageRange> ranges,
                       std::span<std::byte> buffer, std::vector<PushRun>& runs);

}  // namespace migrate
