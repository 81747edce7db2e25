// Loads the page again every few seconds and puts its main part in place, unless somebody reads:
// a part is unfolded, text is selected, or the tab is not looked at.
"use strict";
const PAUSE_MS = 3000;

function isRead() {
  const selected = window.getSelection();
  return document.hidden || document.querySelector("main details[open]") !== null
    || (selected !== null && !selected.isCollapsed);
}

async function refresh() {
  if (!isRead()) {
    try {
      const address = new URL(location.href);
      address.searchParams.delete("said");
      address.searchParams.delete("n");
      const response = await fetch(address, { redirect: "error" });
      const text = await response.text();
      const main = new DOMParser().parseFromString(text, "text/html").querySelector("main");
      if (response.ok && main !== null && !isRead()) {
        document.querySelector("main").replaceWith(document.adoptNode(main));
      }
      document.body.classList.remove("lost");
    } catch {
      document.body.classList.add("lost");
    }
  }
  setTimeout(refresh, PAUSE_MS);
}

setTimeout(refresh, PAUSE_MS);
