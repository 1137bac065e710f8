#include "pager/page_set.h"

#include <algorithm>

namespace migrate {

PageSet page_set(std::vector<PageRange> ranges) {
  std::sort(ranges.begin(), ranges.end(),
            [](const PageRange& a, const PageRange& b) { return a.start < b.start; });
  PageSet pages;
  for (const PageRange& range : ranges) {
    if (pages.empty() || range.start > pages.back().end()) {
      append_to(pages, range);
    } else if (range.end() > pages.back().end()) {
      pages.back() = PageRange::between(pages.back().start, range.end());
    }
  }
  return pages;
}

void append_to(PageSet& pages, PageRange range) {
  if (range.empty()) {
    return;
  }
  if (!pages.empty() && pages.back().end() == range.start) {
    pages.back().page_count += range.page_count;
  } else {
    pages.push_back(range);
  }
}

PageSet join(const PageSet& a, const PageSet& b) {
  PageSet both;
  both.reserve(a.size() + b.size());
  both.insert(both.end(), a.begin(), a.end());
  both.insert(both.end(), b.begin(), b.end());
  return page_set(std::move(both));
}

PageSet common(const PageSet& a, const PageSet& b) {
  PageSet pages;
  for (auto first = a.begin(), second = b.begin(); first != a.end() && second != b.end();) {
    append_to(pages, first->intersect(*second));
    if (first->end() < second->end()) {
      ++first;
    } else {
      ++second;
    }
  }
  return pages;
}

PageSet without(const PageSet& pages, const PageSet& others) {
  PageSet left;
  auto other = others.begin();
  for (const PageRange& range : pages) {
    std::uint64_t from = range.start;
    while (other != others.end() && other->end() <= from) {
      ++other;
    }
    for (auto hole = other; hole != others.end() && hole->start < range.end(); ++hole) {
      append_to(left, PageRange::between(from, hole->start));
      from = std::max(from, hole->end());
    }
    append_to(left, PageRange::between(from, range.end()));
  }
  return left;
}

PageSet first_pages(const PageSet& pages, std::uint64_t page_count) {
  PageSet first;
  for (const PageRange& range : pages) {
    const std::uint64_t taken = std::min(range.page_count, page_count);
    append_to(first, {range.start, taken});
    page_count -= taken;
    if (page_count == 0) {
      break;
    }
  }
  return first;
}

std::uint64_t page_total(const PageSet& pages) {
  std::uint64_t total = 0;
  for (const PageRange& range : pages) {
    total += range.page_count;
  }
  return total;
}

}  // namespace migrate
