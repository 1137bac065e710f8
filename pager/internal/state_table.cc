#include "pager/internal/state_table.h"

#include <algorithm>

namespace migrate {

StateTable StateTable::clone() const {
  StateTable copy;
  copy.counts_ = counts_;
  copy.directories_.reserve(directories_.size());
  for (const auto& [number, directory] : directories_) {
    Directory& target = copy.directories_[number];
    target.uniform = directory.uniform;
    if (!directory.chunks) {
      continue;
    }
    target.chunks = std::make_unique<std::array<Chunk, 512>>();
    for (std::size_t i = 0; i < directory.chunks->size(); ++i) {
      const Chunk& chunk = (*directory.chunks)[i];
      (*target.chunks)[i].uniform = chunk.uniform;
      if (chunk.pages) {
        (*target.chunks)[i].pages =
            std::make_unique<std::array<PageState, kChunkPages>>(*chunk.pages);
      }
    }
  }
  return copy;
}

PageState StateTable::get(std::uint64_t page) const {
  const auto found = directories_.find(page / kDirectoryPages);
  if (found == directories_.end()) {
    return PageState::kPresent;
  }
  const Directory& directory = found->second;
  if (!directory.chunks) {
    return directory.uniform;
  }
  const Chunk& chunk = (*directory.chunks)[page % kDirectoryPages / kChunkPages];
  return chunk.pages ? (*chunk.pages)[page % kChunkPages] : chunk.uniform;
}

void StateTable::recount(PageState from, PageState to, std::uint64_t page_count) {
  counts_[static_cast<std::size_t>(from)] -= page_count;
  counts_[static_cast<std::size_t>(to)] += page_count;
}

void StateTable::set(std::uint64_t page, std::uint64_t page_count, PageState state) {
  while (page_count > 0) {
    const std::uint64_t first = page % kDirectoryPages;
    const std::uint64_t count = std::min(page_count, kDirectoryPages - first);
    set_in_directory(directories_[page / kDirectoryPages], first, count, state);
    page += count;
    page_count -= count;
  }
}

void StateTable::set_in_directory(Directory& directory, std::uint64_t first, std::uint64_t count,
                                  PageState state) {
  if (!directory.chunks) {
    if (directory.uniform == state) {
      return;
    }
    if (count == kDirectoryPages) {
      recount(directory.uniform, state, count);
      directory.uniform = state;
      return;
    }
    directory.chunks = std::make_unique<std::array<Chunk, 512>>();
    for (Chunk& chunk : *directory.chunks) {
      chunk.uniform = directory.uniform;
    }
  }
  const bool whole = count == kDirectoryPages;
  while (count > 0) {
    const std::uint64_t chunk_first = first % kChunkPages;
    const std::uint64_t chunk_count = std::min(count, kChunkPages - chunk_first);
    set_in_chunk((*directory.chunks)[first / kChunkPages], chunk_first, chunk_count, state);
    first += chunk_count;
    count -= chunk_count;
  }
  if (whole) {
    directory.uniform = state;
    directory.chunks.reset();
  }
}

void StateTable::set_in_chunk(Chunk& chunk, std::uint64_t first, std::uint64_t count,
                              PageState state) {
  if (!chunk.pages) {
    if (chunk.uniform == state) {
      return;
    }
    if (count == kChunkPages) {
      recount(chunk.uniform, state, count);
      chunk.uniform = state;
      return;
    }
    chunk.pages = std::make_unique<std::array<PageState, kChunkPages>>();
    chunk.pages->fill(chunk.uniform);
  }
  for (std::uint64_t i = first; i < first + count; ++i) {
    recount((*chunk.pages)[i], state, 1);
    (*chunk.pages)[i] = state;
  }
  if (count == kChunkPages) {
    chunk.uniform = state;
    chunk.pages.reset();
  }
}

StateTable::Run StateTable::local_run(std::uint64_t page) const {
  const std::uint64_t left_in_directory = kDirectoryPages - page % kDirectoryPages;
  const auto found = directories_.find(page / kDirectoryPages);
  if (found == directories_.end()) {
    return {PageState::kPresent, left_in_directory};
  }
  const Directory& directory = found->second;
  if (!directory.chunks) {
    return {directory.uniform, left_in_directory};
  }
  const Chunk& chunk = (*directory.chunks)[page % kDirectoryPages / kChunkPages];
  const std::uint64_t first = page % kChunkPages;
  if (!chunk.pages) {
    return {chunk.uniform, kChunkPages - first};
  }
  const PageState state = (*chunk.pages)[first];
  std::uint64_t end = first + 1;
  while (end < kChunkPages && (*chunk.pages)[end] == state) {
    ++end;
  }
  return {state, end - first};
}

StateTable::Run StateTable::run_at(std::uint64_t page, std::uint64_t limit) const {
  Run run = local_run(page);
  while (run.page_count < limit) {
    const Run next = local_run(page + run.page_count);
    if (next.state != run.state) {
      break;
    }
    run.page_count += next.page_count;
  }
  run.page_count = std::min(run.page_count, limit);
  return run;
}

}  // namespace migrate
