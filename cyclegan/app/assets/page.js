(() => {
  // gradio has tooltips for some controls only; the others get theirs by their id.
  const tips = TOOLTIPS;
  const tell = () => {
    for (const [id, words] of Object.entries(tips)) {
      const element = document.getElementById(id);
      if (element && !element.title) element.title = words;
    }
  };
  new MutationObserver(tell).observe(document, { childList: true, subtree: true });
})();
