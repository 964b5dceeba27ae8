// Runs before the first paint, so that a chosen theme does not flash. Without a choice the system's preference holds.
(() => {
  const themes = ["system", "light", "dark"];
  const stored = () => {
    try {
      return localStorage.getItem("segue-theme");
    } catch {
      return null;
    }
  };
  const apply = (theme) => {
    document.documentElement.dataset.theme = theme;
    const button = document.getElementById("theme-button");
    if (button) button.textContent = { system: "Theme: system", light: "Theme: light", dark: "Theme: dark" }[theme];
  };
  let theme = themes.includes(stored()) ? stored() : "system";
  apply(theme);
  document.addEventListener("DOMContentLoaded", () => apply(theme));
  document.addEventListener("click", (event) => {
    if (!event.target.closest?.("[data-action=theme]")) return;
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    try {
      localStorage.setItem("segue-theme", theme);
    } catch {
      // A browser without storage forgets the choice; nothing else depends on it.
    }
    apply(theme);
    document.dispatchEvent(new Event("segue:theme"));
  });
})();
