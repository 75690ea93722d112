(() => {
  // gradio has tooltips for some controls only; the others get theirs by their id.
  const tips = TOOLTIPS;
  const tell = () => {
    for (const [id, words] of Object.entries(tips)) {
      const element = document.getElementById(id);
      if (element && !element.title) element.title = words;
    }
    for (const image of document.querySelectorAll('button:not([aria-label]) img')) {
      const button = image.closest('button');
      if (!button.textContent.trim()) button.setAttribute('aria-label', image.alt || 'Look at the picture');
    }
  };
  new MutationObserver(tell).observe(document, { childList: true, subtree: true });
})();
