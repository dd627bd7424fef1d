// What a search finds: excerpts also where pages come from the file system, and their sections.
// SEARCH_PAGES holds the text of every page; build_site.py writes it above.
(() => {
  const ask = window.fetch;
  window.fetch = (address, ...rest) => {
    const page = SEARCH_PAGES[new URL(address, location).pathname.split("/").pop()];
    return page ? Promise.resolve({ text: async () => page }) : ask(address, ...rest);
  };
  const summary = Search.makeSearchSummary;
  Search.makeSearchSummary = (text, terms, anchor) => {
    const page = new DOMParser().parseFromString(text, "text/html");
    const has = (part) => [...terms].some((t) => part.textContent.toLowerCase().includes(t));
    const place = [...page.querySelectorAll("section[id]")].find(
      (part) => has(part) && ![...part.querySelectorAll("section")].some(has),
    );
    if (anchor || !place) return summary(text, terms, anchor);
    const found = summary(text, terms, `#${CSS.escape(place.id)}`);
    const link = document.createElement("a");
    link.href = `${page.querySelector("main").dataset.page}#${place.id}`;
    link.textContent = place.dataset.title;
    found?.prepend(link, ": ");
    return found;
  };
})();
