#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <unordered_map>

namespace migrate {

/// What is known of one page of the source at the destination.
enum class PageState : std::uint8_t {
  kPresent,    ///< Installed, or removed since: nothing is ever installed from the source again.
  kUnknown,    ///< Only the source can tell.
  kRequested,  ///< The source was asked; a thread may be waiting.
  kZero,       ///< Zero when touched: absent at the source, or zero there.
  kLocalFile,  ///< Absent at the source: a page of the local file.
};
inline constexpr std::size_t kPageStateCount = 5;

/// The states of all pages of one address space, by page number. Pages never set are kPresent.
/// Memory: one byte for a page in chunks of 512 that are not uniform; uniform chunks and
/// directories (512 chunks, 1 GiB) cost one entry, so that huge reservations are cheap. Owned by
/// its user's lock.
class StateTable {
 public:
  struct Run {
    PageState state;
    std::uint64_t page_count;
  };

  StateTable() = default;
  StateTable(StateTable&&) noexcept = default;
  StateTable& operator=(StateTable&&) noexcept = default;
  StateTable clone() const;

  PageState get(std::uint64_t page) const;
  void set(std::uint64_t page, std::uint64_t page_count, PageState state);
  /// The pages from `page` on with the state that it has, at most `limit` (> 0).
  Run run_at(std::uint64_t page, std::uint64_t limit) const;
  /// Pages in `state`; not kept for kPresent.
  std::uint64_t count(PageState state) const { return counts_[static_cast<std::size_t>(state)]; }

 private:
  static constexpr std::uint64_t kChunkPages = 512;
  static constexpr std::uint64_t kDirectoryPages = kChunkPages * 512;

  struct Chunk {
    PageState uniform = PageState::kPresent;
    std::unique_ptr<std::array<PageState, kChunkPages>> pages;
  };
  struct Directory {
    PageState uniform = PageState::kPresent;
    std::unique_ptr<std::array<Chunk, 512>> chunks;
  };

  void set_in_directory(Directory& directory, std::uint64_t first, std::uint64_t count,
                        PageState state);
  void set_in_chunk(Chunk& chunk, std::uint64_t first, std::uint64_t count, PageState state);
  void recount(PageState from, PageState to, std::uint64_t page_count);
  /// The run from `page` within its chunk, or its directory if that is uniform.
  Run local_run(std::uint64_t page) const;

  std::unordered_map<std::uint64_t, Directory> directories_;
  std::array<std::uint64_t, kPageStateCount> counts_{};
};

}  // namespace migrate
