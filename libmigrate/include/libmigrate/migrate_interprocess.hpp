/// Containers and named objects of Boost.Interprocess in an arena. A header of its own, which
/// migrate.hpp does not include: the library needs no Boost.
///
///   migrate::managed_arena arena("table", 1 << 30);
///   auto* table =
///   arena.segment().construct<Table>("table")(arena.get_allocator<Table::value_type>());
///   ... arena.segment().find<Table>("table").first
#pragma once

#include <boost/interprocess/allocators/allocator.hpp>
#include <boost/interprocess/managed_external_buffer.hpp>
#include <cstddef>
#include <libmigrate/migrate_arena.hpp>
#include <string>

namespace migrate {

/// An arena that a managed segment of Boost.Interprocess has wholly to itself: what is built in it
/// is found by its name and goes with it. One process has it: the segment is not shared with
/// others. Throws as arena, and boost::interprocess::bad_alloc if it is full.
class managed_arena {
 public:
  using segment_type = boost::interprocess::managed_external_buffer;
  template <class Value>
  using allocator = boost::interprocess::allocator<Value, segment_type::segment_manager>;

  managed_arena(const std::string& name, std::size_t bytes)
      : arena_(name, bytes),
        segment_(boost::interprocess::create_only, arena_.address(), arena_.size()) {}

  segment_type& segment() noexcept { return segment_; }
  template <class Value>
  allocator<Value> get_allocator() {
    return allocator<Value>(segment_.get_segment_manager());
  }
  void* address() const noexcept { return arena_.address(); }
  std::size_t size() const noexcept { return arena_.size(); }

 private:
  arena arena_;
  segment_type segment_;
};

}  // namespace migrate
