// Lets readers change the seconds per label; the hours in tables and cards follow.
{
  const inputs = [...document.querySelectorAll("input[data-label-kind]")];

  // As reports.lines.hours writes them.
  const asHours = (value) => {
    if (value === 0) return "0";
    if (value >= 100) return `${Math.round(value).toLocaleString("en-US")} h`;
    return `${value.toFixed(1)} h`;
  };

  const update = () => {
    const seconds = {};
    for (const input of inputs) seconds[input.dataset.labelKind] = Math.max(0, Number(input.value));
    for (const place of document.querySelectorAll("[data-label-counts]")) {
      let total = 0;
      for (const [kind, count] of Object.entries(JSON.parse(place.dataset.labelCounts))) {
        total += count * seconds[kind];
      }
      place.textContent = asHours(total / 3600);
      place.dataset.value = total / 3600;
    }
  };
  for (const input of inputs) {
    input.disabled = false;
    input.addEventListener("input", update);
  }
}
