// Airflow keeps its switch (light, dark, system) in this browser's storage, which no server sees. Same origin: we read it.
(function () {
  function follow() {
    let chosen = null;
    try { chosen = localStorage.getItem("theme"); } catch (refused) { /* storage is off: as the system says */ }
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
    else delete document.documentElement.dataset.theme;
  }
  follow();
  addEventListener("storage", follow);
})();
