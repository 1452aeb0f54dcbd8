"""Where Trio begins: the clock, the driver that moves media at its ticks, and the links that media travels on."""
